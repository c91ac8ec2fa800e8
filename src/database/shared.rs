//! What belongs to a whole server, and not to one of its databases: what changes of it in a scratch database has changed in
//! earnest.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{
    connection::{self, CONNECT, told},
    migrate::beyond::REMEDY,
};

/// How many things are told by name.
const TOLD: usize = 5;
/// How often two sessions are compared that do not see the same: a third one may have changed something in between.
const LOOKS: u32 = 3;
/// Whether a role stays. Those that expire are lent: they come and go on a server, whatever else is done there.
const STAYS: &str = "(rolvaliduntil IS NULL OR NOT isfinite(rolvaliduntil))";
/// What is there: its name, all that is known of it as a hash, and whether nothing is said by its being new: another role may
/// make databases meanwhile. Scratch databases, and those that are being restored, are each of their own release; COMMENTs
/// are no part of it; pg_database notes by itself how old its oldest rows are.
const SHARED: &str = "\
    SELECT format('membership of %I in %I', m.rolname, g.rolname), md5((to_jsonb(a) - 'oid')::text), false FROM pg_auth_members a \
    JOIN pg_roles g ON g.oid = a.roleid JOIN (SELECT * FROM pg_roles WHERE {STAYS}) m ON m.oid = a.member \
    UNION ALL SELECT format('database %I', datname), md5((to_jsonb(d) \
    - '{datfrozenxid,datminmxid,datlastsysoid,dathasloginevt}'::text[])::text), \
    datdba <> (SELECT oid FROM pg_roles WHERE rolname = session_user) FROM pg_database d WHERE datname !~ '^servicerelease_' \
    UNION ALL SELECT 'settings of ' || concat_ws(' in ', 'role ' || quote_ident(rolname), 'database ' || quote_ident(datname)), \
    md5(setconfig::text), false FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole \
    LEFT JOIN pg_database d ON d.oid = setdatabase WHERE coalesce(datname, '') !~ '^servicerelease_' AND {STAYS} \
    UNION ALL SELECT format('tablespace %I', spcname), md5(to_jsonb(t)::text), false FROM pg_tablespace t";
/// Roles with their passwords, for those who may read these.
const WITH_PASSWORDS: &str =
    "UNION ALL SELECT format('role %I', rolname), md5(to_jsonb(r)::text), false FROM pg_authid r WHERE {STAYS}";
/// For all others, with what this transaction has written there and they cannot see. Settings have their own entry.
const WITHOUT_PASSWORDS: &str = "\
    UNION ALL SELECT format('role %I', rolname), md5((to_jsonb(r) - 'rolconfig')::text), false FROM pg_roles r WHERE {STAYS} \
    UNION ALL SELECT DISTINCT 'attributes or the password of a role', '', false FROM pg_locks WHERE pid = pg_backend_pid() \
    AND locktype = 'relation' AND relation = 'pg_catalog.pg_authid'::regclass AND mode = 'RowExclusiveLock'";
/// From PostgreSQL 15 on.
const PARAMETERS: &str =
    "UNION ALL SELECT format('rights to parameter %s', parname), md5(paracl::text), false FROM pg_parameter_acl";
/// What ALTER SYSTEM has written, for those who may read it.
const SYSTEM: &str = "UNION ALL SELECT format('setting %s of the server', name), md5(setting), false FROM pg_file_settings \
                      WHERE sourcefile LIKE '%/postgresql.auto.conf'";

/// All of it at a moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared(BTreeSet<(String, String, bool)>);

impl Shared {
    /// Looks.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn look(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let may = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT'), to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL, \
                   has_table_privilege('pg_catalog.pg_file_settings', 'SELECT') \
                   AND has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')";
        let (passwords, parameters, system): (bool, bool, bool) =
            sqlx::query_as(may).persistent(false).fetch_one(&mut *connection).await?;
        let roles = if passwords { WITH_PASSWORDS } else { WITHOUT_PASSWORDS };
        let others = [(parameters, PARAMETERS), (system, SYSTEM)];
        let others = others.iter().filter(|(wanted, _)| *wanted).map(|(_, query)| *query);
        let query = [SHARED, roles].into_iter().chain(others).collect::<Vec<_>>().join(" ").replace("{STAYS}", STAYS);
        let all = sqlx::query_as(AssertSqlSafe(query)).persistent(false).fetch_all(connection).await?;
        Ok(Self(all.into_iter().collect()))
    }

    /// What has changed by another moment, by name.
    #[must_use]
    pub fn changed<'a>(&'a self, after: &'a Self) -> BTreeSet<&'a str> {
        let is_known = |name: &str| self.0.iter().any(|(known, ..)| known == name);
        let gone = self.0.difference(&after.0).map(|(name, ..)| name.as_str());
        let new = after.0.difference(&self.0).filter(|(name, _, others)| !others || is_known(name));
        gone.chain(new.map(|(name, ..)| name.as_str())).collect()
    }
}

/// Looks from a session of its own.
///
/// # Errors
/// Why nobody can look.
pub async fn look(url: &str) -> Result<Shared, String> {
    let opened = connection::open_unlimited(url, "servicerelease/rehearsal").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let shared = Shared::look(&mut connection).await.map_err(|error| told(&error));
    let _ = connection.close().await;
    shared
}

/// What a transaction has changed, and not yet committed: what it sees, and a session beside it does not. None if there is
/// nothing.
///
/// # Errors
/// Those of the connections.
pub async fn changed_within(
    transaction: &mut PgConnection,
    beside: &PgConnectOptions,
) -> Result<Option<String>, sqlx::Error> {
    let connected = connection::connect(beside, CONNECT).await;
    let mut beside = connected.map_err(|error| sqlx::Error::Configuration(error.to_string().into()))?;
    let mut changed = None;
    for _ in 0..LOOKS {
        let (within, without) = (Shared::look(transaction).await?, Shared::look(&mut beside).await?);
        changed = names(&without.changed(&within));
        if changed.is_none() {
            break;
        }
    }
    let _ = beside.close().await;
    Ok(changed
        .map(|names| format!("it changes the whole server ({names}), which is not done by a rehearsal: {REMEDY}")))
}

/// Names, as many as are told; none if there are none.
#[must_use]
pub fn names(all: &BTreeSet<&str>) -> Option<String> {
    let told: Vec<&str> = all.iter().take(TOLD).copied().collect();
    let more = all.len().saturating_sub(TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!all.is_empty()).then(|| format!("{}{more}", told.join(", ")))
}
