//! Restoring a backup in the database's place: into one beside it, which is proven and then takes its name. Which names
//! there are says how far it came, so that whoever is killed between any two steps is gone on from by the next one.

mod along;
mod traits;
mod verified;

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    api::WorkOutcome,
    engine::{Meant, Report},
};

use super::{
    Places,
    backup::{self, Backup},
    command::others,
    connection::{self, told},
    hexadecimal, meant,
    migrate::ledger,
    report, rights,
    scratch::beside,
};

pub(in crate::database) use traits::give;
pub use verified::verify;

/// Databases that every server has, one of which is not the one in question.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a migration that is under way is waited for.
const MIGRATION: Duration = Duration::from_secs(30);
/// How long sessions may take to end.
const SESSIONS: Duration = Duration::from_secs(30);
/// The longest name that PostgreSQL keeps, in bytes.
const LONGEST_NAME: usize = 63;

/// The names that a restoration goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The database in question.
    pub current: String,
    /// What is being restored, until it takes that name.
    pub restored: String,
    /// What was there before, afterwards.
    pub before: String,
}

impl Names {
    /// Of a database, and what is put after its name.
    #[must_use]
    pub fn of(database: &str, suffix: &str) -> Self {
        let room = LONGEST_NAME.saturating_sub(suffix.len());
        let before = format!("{}{suffix}", &database[..database.floor_char_boundary(room)]);
        let hash = hexadecimal(&Sha256::digest(format!("{database}\0{suffix}")));
        Self { current: database.to_owned(), restored: format!("servicerelease_restore_{}", &hash[..16]), before }
    }
}

/// Why it did not come to its end.
enum Stop {
    /// It did not come to read how far one before it came.
    Unread(String),
    /// The database is as it was.
    NotBegun(String),
    /// It was on the way.
    Unknown(String),
}

/// Restores a backup; what was there stays under its name and a suffix. What releases of others have done to the database since
/// then is in its way. `release`: namespace, name and number of the one that goes back.
pub async fn restore(places: &Places, name: &str, suffix: &str, release: &str, meant: &Meant) -> Report {
    let options = match connection::options(&places.url, "servicerelease/restore") {
        Ok(options) => options,
        Err(error) => return report::unread(error.to_string()),
    };
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    let backup = match backup::known_whole(&places.backups, name) {
        Ok(backup) => backup,
        Err(why) => return report::unread(why),
    };
    let maintenance = match maintenance(&places.url, database).await {
        Ok(connection) => connection,
        Err(why) => return report::unread(why),
    };
    let mut work = Work {
        places,
        names: Names::of(database, suffix),
        mark: mark(suffix, &backup),
        meant,
        release,
        backup,
        maintenance,
        lost: Vec::new(),
        settle: String::new(),
        seen: None,
    };
    let ended = work.drive().await;
    let Work { names: Names { current, before, .. }, backup, maintenance, lost, settle, .. } = work;
    let _ = maintenance.close().await;
    match ended {
        Ok(()) => {
            let lost = if lost.is_empty() { String::new() } else { format!("; not kept: {}", lost.join(", ")) };
            let rows: i64 = backup.rows.values().sum();
            let message = format!("{current} is {name} now, with {rows} rows; what was there before is {before}{lost}");
            report::of(WorkOutcome::Done, message)
        }
        Err(Stop::Unread(why)) => report::unread(why),
        Err(Stop::NotBegun(why)) => Report { settle, ..report::not_begun(why) },
        Err(Stop::Unknown(why)) => report::unknown(format!("{why}; run it again: it goes on from where it is")),
    }
}

/// What the comment of a database that was restored whole ends with.
fn mark(suffix: &str, backup: &Backup) -> String {
    format!("servicerelease: restored {suffix} {}", backup.sha256)
}

/// A connection to another database of the server.
async fn maintenance(url: &str, database: &str) -> Result<PgConnection, String> {
    let mut last = String::new();
    for other in MAINTENANCE.into_iter().filter(|other| *other != database) {
        match connection::open_unlimited(&beside(url, other)?, "servicerelease/restore").await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// A restoration under way.
struct Work<'a> {
    places: &'a Places,
    names: Names,
    /// The comment of a database that was restored whole.
    mark: String,
    meant: &'a Meant,
    release: &'a str,
    backup: Backup,
    maintenance: PgConnection,
    /// What of the database could not be given to the new one.
    lost: Vec<String>,
    /// The statement by which a person lets go what keeps it from being done.
    settle: String,
    /// How it was when it was last looked at.
    seen: Option<Seen>,
}

/// How far it has come, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The database has its name.
    AsItWas,
    /// It has given its name away, or is about to.
    Aside,
}

/// Which databases there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct There {
    current: bool,
    before: bool,
    restored: bool,
    /// Whether the one with the name in question is the restored one.
    swapped: bool,
    /// Whether what was restored is whole.
    whole: bool,
}

impl Work<'_> {
    /// As many steps as it takes.
    async fn drive(&mut self) -> Result<(), Stop> {
        // Two pods of one Job do this one after the other.
        let lock = "SELECT pg_try_advisory_lock(hashtextextended('servicerelease/restore ' || $1, 0))";
        let unread = |error: sqlx::Error| Stop::Unread(told(&error));
        while !sqlx::query_scalar::<_, bool>(lock)
            .bind(&self.names.current)
            .fetch_one(&mut self.maintenance)
            .await
            .map_err(unread)?
        {
            sleep(PAUSE).await;
        }
        if let Some(why) = self.elsewhere().await.map_err(unread)? {
            return Err(Stop::Unread(why));
        }
        loop {
            let there = self.there().await.map_err(|error| self.broken_off(&told(&error)))?;
            let Names { current, before, restored } = self.names.clone();
            let aside = !there.current || there.swapped;
            self.seen = Some(if aside { Seen::Aside } else { Seen::AsItWas });
            match there {
                There { current: true, before: true, swapped: true, .. } => {
                    return self.open(&before).await.map_err(|error| {
                        let told = told(&error);
                        Stop::Unknown(format!(
                            "{current} is the restored one by now, but {before} may take no connections: {told}"
                        ))
                    });
                }
                There { current: true, before: true, .. } => {
                    let why = format!(
                        "there is a database {before} already, which is not of this restoration: rename or drop it"
                    );
                    return Err(Stop::NotBegun(why));
                }
                There { current: true, restored: true, whole: true, .. } => {
                    self.step_aside().await?;
                    self.seen = Some(Seen::Aside);
                }
                There { current: true, .. } => self.fill().await.map_err(Stop::NotBegun)?,
                There { current: false, before: true, restored: true, whole: true, .. } => {
                    let renamed = self.rename(&restored, &current).await;
                    renamed.map_err(|error| match error.as_database_error() {
                        // The answer alone may be lost.
                        None => self.broken_off(&told(&error)),
                        Some(_) => Stop::Unknown(format!(
                            "there is no database {current} now, since it cannot be given its name: {}. By hand: ALTER DATABASE {restored} \
                             RENAME TO {}",
                            told(&error),
                            quoted(&current)
                        )),
                    })?;
                }
                There { current: false, .. } => {
                    let why = format!(
                        "there is no database {current}, and none that was restored for it ({before}: {})",
                        there.before
                    );
                    return Err(Stop::Unknown(why));
                }
            }
        }
    }

    /// The way to the server is lost between two steps.
    fn broken_off(&self, why: &str) -> Stop {
        let Names { current, before, restored } = &self.names;
        match self.seen {
            None => Stop::Unread(why.to_owned()),
            Some(Seen::AsItWas) => Stop::NotBegun(why.to_owned()),
            Some(Seen::Aside) => Stop::Unknown(format!(
                "what was there is {before} by now, and what was restored is {restored}, or {current} already ({why})"
            )),
        }
    }

    /// Why the database in question is not the one that the backup is of, or that the release began with. Between two names
    /// there is none to be asked: its server is.
    async fn elsewhere(&mut self) -> Result<Option<String>, sqlx::Error> {
        let (current, meant) = (&self.names.current, &self.meant.database);
        let server = meant::server(&mut self.maintenance).await?;
        if !meant.is_empty() && !meant::may_be(&format!("{current}@{server}"), meant) {
            return Ok(Some(format!(
                "the URL leads to database {current}@{server}, and the release began with {meant}: the Secret changed since; \
                 nothing was restored. Let it lead to that database again"
            )));
        }
        let owner = self.backup.owner.as_ref().map(|owner| owner.database.as_str());
        let (Some(owner), true) = (owner, meant::is_identifier(&server)) else { return Ok(None) };
        // A backup that knows its server by the way to it alone says nothing of that.
        let known = owner.split_once('/').is_some_and(|(of, _)| meant::is_identifier(of));
        Ok((known && owner != format!("{server}/{current}")).then(|| {
            format!("the backup {} is of database {owner}, and the URL leads to {server}/{current}", self.backup.file)
        }))
    }

    async fn there(&mut self) -> Result<There, sqlx::Error> {
        let query = "SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database \
                     WHERE datname = ANY ($1)";
        let Names { current, before, restored } = &self.names;
        let all: Vec<(String, String)> = sqlx::query_as(query)
            .bind([current, before, restored].map(String::as_str).as_slice())
            .fetch_all(&mut self.maintenance)
            .await?;
        let find = |name: &str| all.iter().find(|(known, _)| known == name);
        let marked = |name: &str| find(name).is_some_and(|(_, comment)| comment.ends_with(&self.mark));
        Ok(There {
            current: find(current).is_some(),
            before: find(before).is_some(),
            restored: find(restored).is_some(),
            swapped: marked(current),
            whole: marked(restored),
        })
    }

    /// Makes the new one, and proves it.
    async fn fill(&mut self) -> Result<(), String> {
        let Names { current, restored, .. } = self.names.clone();
        let mut migrations = self.no_migration().await?;
        let made = async {
            let url = beside(&self.places.url, &restored)?;
            traits::make(&mut self.maintenance, &current, &restored).await?;
            // Without owners and rights the application would be locked out of what takes its database's place.
            if let Err(why) = backup::fill(&url, &self.places.backups, &self.backup, &[]).await {
                return Err(self.with_remedy(why).await);
            }
            self.lost.extend(traits::copy(&mut self.maintenance, &current, &restored).await?);
            // A dump has none, and traffic comes at once. The server makes them by and by where this fails.
            self.lost.extend(analyzed(&url).await.err().map(|why| format!("statistics ({why})")));
            let comment = traits::comment(&mut self.maintenance, &current).await?;
            let mark = format!("COMMENT ON DATABASE {restored} IS {}", literal(&format!("{comment}{}", self.mark)));
            self.execute(&mark).await.map_err(|error| told(&error))
        };
        let made = made.await;
        if made.is_err() {
            let _ = self.execute(&format!("DROP DATABASE IF EXISTS {restored} WITH (FORCE)")).await;
        }
        // It may not survive what comes next.
        let _ = migrations.execute("SELECT pg_advisory_unlock_all()").await;
        let _ = migrations.close().await;
        made
    }

    /// Why a backup was not restored with its owners and rights, and what can be done where a right is missing.
    async fn with_remedy(&self, why: String) -> String {
        let denied =
            ["permission denied", "must be member of role", "must be able to SET ROLE", "must be owner", "superuser"];
        if !denied.iter().any(|words| why.contains(words)) {
            return why;
        }
        let lacking = async {
            let mut connection = connection::open(&self.places.url, "servicerelease/restore").await.ok()?;
            let lacking = rights::owners(&mut connection).await.ok().flatten();
            let _ = connection.close().await;
            lacking
        };
        let remedy = lacking.await.unwrap_or_else(|| {
            "a restore keeps owners and rights: name the URL of a role in directUrlFrom that may give them, such as a superuser".into()
        });
        format!("{remedy} ({})", report::cut(&why, 160))
    }

    /// A session that keeps migrations away, of a database in which nobody else has made any since the backup was begun.
    async fn no_migration(&mut self) -> Result<PgConnection, String> {
        let opened = connection::open_unlimited(&self.places.url, "servicerelease/restore").await;
        let mut connection = opened.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        while !ledger::lock(&mut connection).await.map_err(|error| told(&error))? {
            if begun.elapsed() > MIGRATION {
                return Err(ledger::told_holder(&mut connection).await.unwrap_or_else(|error| told(&error)));
            }
            sleep(PAUSE).await;
        }
        others::gone(&mut connection, None, begun + MIGRATION).await.map_err(|error| told(&error))??;
        match along::others(&mut connection, &self.backup, self.release).await {
            Ok(None) => Ok(connection),
            Ok(Some((why, settle))) => {
                self.settle = settle;
                Err(why)
            }
            Err(error) => Err(format!("the ledger cannot be read: {}", told(&error))),
        }
    }

    /// Ends all sessions of the database, and gives it its new name.
    async fn step_aside(&mut self) -> Result<(), Stop> {
        let Names { current, before, .. } = self.names.clone();
        let aside = async {
            // They may have come since it was filled, unless it was closed by then.
            let migrations = if self.is_open(&current).await? { Some(self.no_migration().await?) } else { None };
            let close = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", quoted(&current));
            self.execute(&close).await.map_err(|error| told(&error))?;
            drop(migrations);
            self.end_sessions(&current).await?;
            self.rename(&current, &before).await.map_err(|error| told(&error))
        };
        let Err(why) = aside.await else { return Ok(()) };
        // Nothing has happened to it yet, unless the answer alone was lost.
        match self.there().await {
            Ok(There { current: true, before: false, .. }) => match self.open(&current).await {
                Ok(()) => Err(Stop::NotBegun(why)),
                Err(error) => {
                    Err(Stop::Unknown(format!("{why}; and {current} takes no connections now: {}", told(&error))))
                }
            },
            Ok(_) => Ok(()),
            Err(error) => Err(Stop::Unknown(format!(
                "{why}; {current} may take no connections now, or be {before} already: {}",
                told(&error)
            ))),
        }
    }

    /// Whether it takes connections.
    async fn is_open(&mut self, database: &str) -> Result<bool, String> {
        let open = sqlx::query_scalar("SELECT datallowconn FROM pg_database WHERE datname = $1").bind(database);
        open.fetch_one(&mut self.maintenance).await.map_err(|error| told(&error))
    }

    async fn end_sessions(&mut self, database: &str) -> Result<(), String> {
        let begun = Instant::now();
        // Of the sessions of others an ordinary role sees nothing but that they are there.
        let left = "SELECT pid, usename::text FROM pg_stat_activity WHERE datname = $1 \
                    AND coalesce(backend_type, 'client backend') = 'client backend'";
        loop {
            let left: Vec<(i32, Option<String>)> = sqlx::query_as(left)
                .bind(database)
                .fetch_all(&mut self.maintenance)
                .await
                .map_err(|error| told(&error))?;
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > SESSIONS {
                return Err(format!("{} sessions of {database} do not end", left.len()));
            }
            for (pid, role) in left {
                let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut self.maintenance).await;
                end.map_err(|error| {
                    let role = role.unwrap_or_default();
                    format!(
                        "sessions of {role} in {database} cannot be ended: {}; GRANT pg_signal_backend to the role of the URL (a superuser's \
                         session only a superuser ends), or end what holds them",
                        told(&error)
                    )
                })?;
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&mut self, database: &str) -> Result<(), sqlx::Error> {
        self.execute(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", quoted(database))).await
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<(), sqlx::Error> {
        self.execute(&format!("ALTER DATABASE {} RENAME TO {}", quoted(from), quoted(to))).await
    }

    async fn execute(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        run(&mut self.maintenance, statement).await
    }
}

/// Has the server make its statistics, by which it plans queries.
async fn analyzed(url: &str) -> Result<(), String> {
    let opened = connection::open_unlimited(url, "servicerelease/restore").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let analyzed = run(&mut connection, "ANALYZE").await;
    let _ = connection.close().await;
    analyzed.map_err(|error| told(&error))
}

/// Runs a statement.
async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await.map(|_| ())
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL has it.
pub(in crate::database) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_each_time_and_never_too_long() {
        let names = Names::of("shop", "_before_3");
        assert_eq!((names.before.as_str(), &names), ("shop_before_3", &Names::of("shop", "_before_3")));
        assert_ne!(names.restored, Names::of("shop", "_before_4").restored);
        let long = Names::of(&"ü".repeat(31), "_before_12");
        assert!(long.before.len() <= LONGEST_NAME && long.before.ends_with("_before_12"), "{long:?}");
    }

    #[test]
    fn names_and_texts_are_written_as_sql_reads_them() {
        assert_eq!((quoted("a\"b"), literal("it's \\")), ("\"a\"\"b\"".into(), "E'it\\'s \\\\'".into()));
    }
}
