//! Whether a command of the user's keeps to the scratch database: what leads elsewhere is looked for before it runs, and
//! afterwards somebody must have been there. A rehearsal that migrates the real database would be worse than none: of one that
//! may have, nobody knows the outcome.

use std::{ffi::OsString, net::IpAddr, time::Duration};

use sqlx::{Executor as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::database::connection::{self, told};

/// What a person can do about it.
const REMEDY: &str =
    "let the command take the URL from DATABASE_URL, which a rehearsal sets, or set rehearsal.mode: Skip";
/// How long servers before 15 keep the counts of a session to themselves.
const KEPT: Duration = Duration::from_millis(1_100);
/// How long a count may take to be known to others.
const COUNTED: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// What the names of hosts end with that stand for no server in particular.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The database that is to be left alone.
pub struct Real {
    host: String,
    database: String,
}

impl Real {
    /// That of a URL.
    ///
    /// # Errors
    /// It is none.
    pub fn of(url: &str) -> Result<Self, String> {
        let options = connection::options(url, "servicerelease/rehearsal").map_err(|error| error.to_string())?;
        let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
        Ok(Self { host: options.get_host().to_owned(), database })
    }

    /// Why the command is not run: what of its environment, as it is going to be, or of its words leads to it.
    pub fn reached_by(
        &self,
        variables: impl Iterator<Item = (OsString, OsString)>,
        words: &[OsString],
    ) -> Option<String> {
        let text = |text: OsString| text.into_string().ok();
        let mut variables = variables.filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        let variable = variables.find(|(name, value)| self.is_variable(name, value));
        let what = match variable {
            Some((name, _)) => format!("variable {name}"),
            None => {
                let word = words.iter().position(|word| word.to_str().is_some_and(|text| self.is_in(text)));
                // `-d NAME` are two words.
                let all: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
                let place = word.or_else(|| self.is_in(&all.join(" ")).then_some(0))?;
                if place == 0 { "the command".to_owned() } else { format!("argument {place} of the command") }
            }
        };
        Some(format!("it is not run: {what} leads to the real database; {REMEDY}"))
    }

    fn is_variable(&self, name: &str, value: &str) -> bool {
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        // Kubernetes tells every pod of every Service.
        if name.ends_with("_service_host") || name.ends_with("_port") || name.contains("_port_") {
            return false;
        }
        let of_database = ["db", "database", "postgres", "pg"].iter().any(|word| name.contains(word));
        let unlike_others = self.host.contains('.') && !self.is_loopback();
        let told = is_host(&name) && (of_database || !self.is_loopback());
        (told && self.is_host(value))
            || (unlike_others && self.is_exactly(value))
            || (is_name(&name) && value == self.database)
            || self.is_in(value)
    }

    fn is_loopback(&self) -> bool {
        LOOPBACK.contains(&self.host.as_str())
    }

    /// Whether a text is the host, with a port or without, by its full name or the short one.
    fn is_host(&self, text: &str) -> bool {
        let (host, bare) = (plain(&self.host), plain(text));
        let longer = |one: &str, other: &str| {
            let address = [one, other].iter().any(|it| it.parse::<IpAddr>().is_ok());
            !address && !other.contains('.') && one.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'))
        };
        !bare.is_empty() && (bare == host || longer(&bare, &host) || longer(&host, &bare))
    }

    /// Whether it is by just that name.
    fn is_exactly(&self, text: &str) -> bool {
        plain(text) == plain(&self.host)
    }

    /// Whether a URL in a text, or words such as `host=H dbname=N` and `-h H -d N`, lead to it.
    fn is_in(&self, text: &str) -> bool {
        self.is_in_url(text) || self.is_in_words(text)
    }

    fn is_in_url(&self, text: &str) -> bool {
        text.match_indices("://").any(|(place, _)| {
            let scheme = text[..place].rsplit(|letter: char| !letter.is_ascii_alphanumeric() && letter != '+').next();
            let scheme = scheme.unwrap_or_default().to_ascii_lowercase();
            if !["postg", "pg", "psql"].iter().any(|known| scheme.starts_with(known)) {
                return false;
            }
            let url = &text[place + 3..];
            let end = url.find(|letter: char| letter.is_whitespace() || "\"'?;&|)<>".contains(letter));
            let (authority, path) = match url[..end.unwrap_or(url.len())].split_once('/') {
                Some((authority, path)) => (authority, path),
                None => (&url[..end.unwrap_or(url.len())], ""),
            };
            let host = authority.rsplit('@').next().unwrap_or_default();
            // Of another host a database of the same name is taken for the same one: there may be a pooler in between.
            path == self.database || (path.is_empty() && self.is_host(host))
        })
    }

    fn is_in_words(&self, text: &str) -> bool {
        let (mut host, mut names) = (false, Vec::new());
        let mut option = None;
        let words = text.split(|letter: char| letter.is_whitespace() || "\"';,&|()".contains(letter));
        for word in words.filter(|word| !word.is_empty()) {
            let (key, value) = match (word.split_once('='), option.take(), word.strip_prefix("-h")) {
                (Some((key, value)), _, _) => (key, value),
                (None, _, Some(value)) if !value.is_empty() => ("host", value),
                (None, Some(key), _) => (key, word),
                _ => {
                    option = word.starts_with('-').then_some(word);
                    continue;
                }
            };
            let key = key.trim_start_matches('-').to_ascii_lowercase();
            host |= (key == "h" || is_host(&key)) && self.is_host(value);
            names.extend((key == "d" || is_name(&key)).then_some(value));
        }
        names.contains(&self.database.as_str()) || (host && names.is_empty())
    }
}

/// A host without its port.
fn plain(text: &str) -> String {
    let text = text.trim_matches(['[', ']', '.']).to_ascii_lowercase();
    match text.rsplit_once(':') {
        Some((bare, port)) if !bare.contains(':') && port.bytes().all(|it| it.is_ascii_digit()) => bare.to_owned(),
        _ => text,
    }
}

/// Whether a key is one of a host.
fn is_host(key: &str) -> bool {
    ["host", "hostname", "hostaddr", "server", "address", "addr", "endpoint"].iter().any(|end| key.ends_with(end))
}

/// Whether a key is one of a database's name, and not of its role, which often is the same.
fn is_name(key: &str) -> bool {
    let key = key.replace(['_', '-'], "");
    ["dbname", "database", "databasename", "db"].iter().any(|end| key.ends_with(end))
}

/// Whether anybody has come to a database since a moment.
pub struct Watch {
    before: Option<i64>,
    seen: bool,
}

impl Watch {
    /// From now on. Nobody else is there.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn begin(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        // This session is to be counted by then.
        let flushes = "SELECT count(*) > 0 FROM pg_proc WHERE proname = 'pg_stat_force_next_flush'";
        if sqlx::query_scalar::<_, bool>(flushes).fetch_one(&mut *connection).await? {
            connection.execute("SELECT pg_stat_force_next_flush()").await?;
        } else {
            sleep(KEPT).await;
            connection.execute("SELECT 1").await?;
            sleep(KEPT).await;
        }
        Ok(Self { before: sessions(connection).await?, seen: false })
    }

    /// Looks who is there. It goes by the others' roles: background processes have none.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn look(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let query = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                     AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'";
        self.seen = self.seen || sqlx::query_scalar::<_, bool>(query).fetch_one(connection).await?;
        Ok(())
    }

    /// Why nobody knows where the command was, which has ended well, with all its sessions; none if somebody came. The server
    /// counts sessions (from 14 on), and a session is counted before it is gone.
    pub async fn elsewhere(&self, connection: &mut PgConnection) -> Option<String> {
        if self.seen {
            return None;
        }
        let begun = Instant::now();
        loop {
            match sessions(connection).await {
                Ok(now) if now != self.before => return None,
                Ok(_) if self.before.is_none() || begun.elapsed() > COUNTED => {
                    return Some(astray("it ended well, and was never connected to the database of the rehearsal"));
                }
                Ok(_) => sleep(LOOK).await,
                Err(error) => return self.unseen(&told(&error)),
            }
        }
    }

    /// The same where nobody can look any more. Whoever was seen has come.
    pub fn unseen(&self, why: &str) -> Option<String> {
        let told = format!(
            "it ended well, and whether it was connected to the database of the rehearsal is not known ({why})"
        );
        (!self.seen).then(|| astray(&told))
    }
}

fn astray(what: &str) -> String {
    format!("{what}: what it does is not known, and it may have been done to the real database; {REMEDY}")
}

/// How many sessions of clients there have ever been; none where the server does not count them.
async fn sessions(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let query = "SELECT (to_jsonb(d)->>'sessions')::bigint FROM pg_stat_database d WHERE datname = current_database()";
    sqlx::query_scalar(query).fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(url: &str, variables: &[(&str, &str)], words: &[&str]) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Real::of(url).unwrap().reached_by(variables, &words)
    }

    const URL: &str = "postgres://shop:word@db:5432/orders";

    #[test]
    fn what_leads_to_the_real_database_is_found() {
        for (name, value) in [
            ("DB_HOST", "db"),
            ("DB_HOST", "db.prod.svc.cluster.local:5432"),
            ("DATABASE_SERVER", "DB"),
            ("DB_NAME", "orders"),
            ("POSTGRES_DB", "orders"),
            ("DSN", "host=db user=shop"),
            ("DSN", "host=pooler dbname=orders"),
            ("CONNECTION", "Host=db;Port=5432;Database=orders"),
            ("OPTIONS", "--url postgresql+psycopg://shop@pooler/orders"),
        ] {
            let found = told(URL, &[("HOME", "/"), (name, value)], &[]).unwrap_or_default();
            assert!(found.contains(&format!("variable {name} ")), "{name}={value}: {found}");
        }
        for words in [
            &["migrate", "-database", "postgres://shop:word@db/orders?sslmode=disable"][..],
            &["sh", "-c", "flyway -url=jdbc:postgresql://db:5432/orders migrate"],
            &["psql", "-h", "db"],
            &["psql", "-hdb", "-f", "x.sql"],
            &["psql", "-d", "orders"],
            &["sh", "-c", "PGHOST=db psql -f x.sql"],
            &["tool", "--db-host=db"],
        ] {
            assert!(told(URL, &[], words).is_some(), "{words:?}");
        }
        assert!(told("postgres://shop@10.0.12.7/orders", &[("MAIN", "10.0.12.7:5432")], &[]).is_some());
        assert!(told("postgres://shop@postgres.shop/orders", &[("DB_HOST", "postgres")], &[]).is_some());
        assert!(told("postgres://shop@127.0.0.1/shop", &[("DB_HOST", "127.0.0.1")], &[]).is_some());
        assert!(told("postgres://shop@x.rds.amazonaws.com/shop", &[("MAIN", "x.rds.amazonaws.com")], &[]).is_some());
    }

    #[test]
    fn what_only_looks_like_it_is_no_reason() {
        let variables = [
            ("DB_SERVICE_HOST", "db"),
            ("DB_PORT", "tcp://db:5432"),
            ("DB_PORT_5432_TCP_ADDR", "db"),
            ("APP_NAME", "orders"),
            ("DB_USER", "orders"),
            ("DB_USERNAME", "orders"),
            ("DB_PORT_NUMBER", "5432"),
            ("ELSEWHERE", "postgres://db/another"),
            ("DSN", "host=db dbname=another"),
            ("API", "http://db/orders"),
            ("COMPONENT", "db"),
        ];
        assert_eq!(told(URL, &variables, &["node_modules/.bin/prisma", "db", "seed"]), None);
        let words = ["sh", "-ec", "exec migrate -path /migrations -database \"$DATABASE_URL\" goto 2"];
        assert_eq!(told(URL, &[], &words), None);
        assert_eq!(told(URL, &[], &["psql", "-h", "db", "-d", "another"]), None);
        assert_eq!(told(URL, &[], &["node", "scripts/rollback.mjs", "--to-version=20240101", "orders", "db"]), None);
        let numbers = [("DB_POOL_SIZE", "10"), ("MAX_RETRIES", "10"), ("SERVER", "10")];
        assert_eq!(told("postgres://shop@10.0.12.7/orders", &numbers, &[]), None);
        let words = [("POSTGRES_USER", "postgres"), ("DB_TYPE", "postgres"), ("DIALECT", "postgres")];
        assert_eq!(told("postgres://shop@postgres.shop.svc.cluster.local/orders", &words, &[]), None);
        let local = "postgres://shop@localhost/shop";
        assert_eq!(told(local, &[("REDIS_HOST", "localhost"), ("HOSTNAME", "shop-1")], &[]), None);
    }
}
