//! What a role must be allowed for what a release is going to do, looked at while nothing has been done yet; each thing
//! that is missing with its remedy.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::engine::Planned;

use super::{
    Places,
    connection::{self, told},
    restore::literal,
    scratch::Server,
    tool,
};

/// How many of several things are told by name.
const TOLD: usize = 3;
/// Roles of those who run servers for others: what they may make, the catalog does not tell.
const HOSTS: &str = "('rds_superuser', 'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin', 'neon_superuser', \
                     'doadmin', 'avnadmin')";
/// What users made in a database: not what is there from the beginning, nor what belongs to an extension.
const OBJECTS: &str = "SELECT o.owner, n.nspname, n.nspowner FROM (\
    SELECT relowner AS owner, relnamespace AS schema, oid, 'pg_class'::regclass AS class FROM pg_class \
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't' \
    UNION ALL SELECT proowner, pronamespace, oid, 'pg_proc' FROM pg_proc \
    UNION ALL SELECT typowner, typnamespace, oid, 'pg_type' FROM pg_type WHERE typtype IN ('e', 'd') \
    UNION ALL SELECT nspowner, oid, oid, 'pg_namespace' FROM pg_namespace) o \
    JOIN pg_namespace n ON n.oid = o.schema WHERE o.oid >= 16384 AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')";

/// Looks whether what is planned could be done.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn look(places: &Places, planned: &[Planned]) -> Result<Vec<String>, String> {
    if planned.is_empty() {
        return Ok(Vec::new());
    }
    let opened = connection::open(&places.url, "servicerelease/preflight").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let faults = all(&mut connection, places, planned).await;
    let _ = connection.close().await;
    faults
}

async fn all(connection: &mut PgConnection, places: &Places, planned: &[Planned]) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let failed = |error: sqlx::Error| told(&error);
    if planned.contains(&Planned::Backup) {
        faults.extend(programs(connection).await.map_err(failed)?);
        faults.extend(reading(connection).await.map_err(failed)?);
    }
    let restored = planned.contains(&Planned::Restore);
    if planned.iter().any(|what| matches!(what, Planned::Proof | Planned::Rehearsal)) {
        let server = Server::of(&places.url, places.scratch.as_deref(), "")?;
        let mut there = server.connect().await.map_err(|why| format!("the server for scratch databases: {why}"))?;
        let remedy = "name a superuser's URL in backup.scratchUrlFrom, or say proof: Skip, without a rehearsal";
        faults.extend(making(&mut there, "backup.scratchUrlFrom names another server").await.map_err(failed)?);
        faults.extend(extensions(connection, &mut there, remedy).await.map_err(failed)?);
        let _ = there.close().await;
    } else if restored {
        faults.extend(making(connection, "onRollback is another one than Restore").await.map_err(failed)?);
    }
    if restored {
        faults.extend(replacing(connection).await.map_err(failed)?);
    }
    Ok(faults)
}

/// Looks whether the sessions of a command could be told, and what they wait for cancelled, where its own URL has another
/// role: of other roles' sessions an ordinary one sees neither the address nor what they do, so that they would be taken for
/// gone while they are at work.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn over_tool(places: &Places) -> Result<Vec<String>, String> {
    // One that cannot be read is for its program to tell.
    let options = places.tool.as_ref().and_then(|tool| connection::options(tool, "servicerelease/preflight").ok());
    let own = connection::options(&places.url, "servicerelease/preflight").map_err(|error| error.to_string())?;
    let Some(tool) = options.filter(|tool| tool.get_username() != own.get_username()) else { return Ok(Vec::new()) };
    let opened = connection::open(&places.url, "servicerelease/preflight").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let fault = watching(&mut connection, tool.get_username()).await.map_err(|error| told(&error));
    let _ = connection.close().await;
    Ok(fault?.into_iter().collect())
}

async fn watching(connection: &mut PgConnection, tool: &str) -> Result<Option<String>, sqlx::Error> {
    let (role, name) = (role(connection).await?, literal(tool));
    // Whoever has all that a role may do sees its sessions, and may cancel what they do.
    let lacking = format!(
        "SELECT needed FROM unnest(ARRAY['pg_read_all_stats', 'pg_signal_backend']) needed WHERE NOT pg_has_role(needed::name, 'USAGE') \
         AND NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = {name} AND pg_has_role(oid, 'USAGE')) ORDER BY 1"
    );
    let lacking = list(connection, &lacking).await?;
    let above = format!(
        "SELECT 1 FROM pg_roles WHERE rolname = {name} AND rolsuper AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    );
    let why = format!(
        "role {role} may not tell whether sessions of role {tool} are at work, or cancel what waits for a lock"
    );
    let whose = "which DATABASE_URL of the migration's pod names";
    if !list(connection, &above).await?.is_empty() {
        return Ok(Some(format!("{why}, {whose}, since that is a superuser: let both URLs have one role")));
    }
    let all = lacking.join(", ");
    Ok((!lacking.is_empty()).then(|| format!("{why}, {whose}: GRANT {all} TO {role}, or let both URLs have one role")))
}

/// The first column of all rows, as text. By the simple protocol: a pooler between transactions keeps no statement.
async fn list(connection: &mut PgConnection, query: &str) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(row.try_get_raw(0)?.as_str().map(str::to_owned).unwrap_or_default())).collect()
}

async fn one(connection: &mut PgConnection, query: &str) -> Result<String, sqlx::Error> {
    Ok(list(connection, query).await?.into_iter().next().unwrap_or_default())
}

/// The role of a connection, as SQL has it.
pub(super) async fn role(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    one(connection, "SELECT quote_ident(current_user)").await
}

/// Names, as many as are told.
fn names(all: &[String]) -> String {
    let more = all.len().saturating_sub(TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", all[..all.len().min(TOLD)].join(", "))
}

/// Whether this image's programs can dump the server.
async fn programs(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    // It is of the same version as pg_dump, and goes along into the pods of others.
    let Ok(own) = tool::run("pg_restore", &[], &["--version".as_ref()]).await else { return Ok(None) };
    let server = one(connection, "SELECT current_setting('server_version_num')").await?;
    Ok(older(&own, server.parse().unwrap_or_default()))
}

/// Whether a program, by what it says of its version, is older than a server.
fn older(own: &str, server: u32) -> Option<String> {
    let number = own.split_whitespace().find_map(|word| word.split('.').next()?.parse::<u32>().ok())?;
    let server = server / 10_000;
    (number < server).then(|| {
        let remedy = other_image(&server.to_string());
        format!("pg_dump {number} of the operator's image dumps no PostgreSQL {server}: {remedy}")
    })
}

/// What helps where a server is newer than the image's programs.
pub(super) fn other_image(major: &str) -> String {
    format!("take an image of --build-arg PG_MAJOR={major}")
}

/// Whether the role of a connection lacks what it takes to be the owner: what the owner has, and to give things to it. These
/// are two since PostgreSQL 16, and who makes a role there has neither.
async fn lacks(connection: &mut PgConnection, owner: &str) -> Result<String, sqlx::Error> {
    let sets = two_rights(connection).await?;
    let set = if sets { format!(" AND pg_has_role({owner}, 'SET')") } else { String::new() };
    Ok(format!("NOT (pg_has_role({owner}, 'USAGE'){set})"))
}

async fn two_rights(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(one(connection, "SELECT (current_setting('server_version_num')::int >= 160000)::int").await? == "1")
}

/// What is put after a GRANT to one who is a member already.
const BOTH: &str = "WITH INHERIT TRUE, SET TRUE";

/// What pg_dump reads.
async fn reading(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let of = |kinds: &str, what: &str| {
        format!(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
             WHERE relkind IN ({kinds}) AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
             AND {what} AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid \
             AND deptype = 'e') ORDER BY 1"
        )
    };
    let role = role(connection).await?;
    let readable = "NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";
    let hidden = list(connection, &of("'r', 'p', 'S'", readable)).await?;
    let filtered = list(connection, &of("'r', 'p'", "row_security_active(c.oid)")).await?;
    let hidden = (!hidden.is_empty()).then(|| {
        format!(
            "role {role} may not read {}, and a backup is of all tables: GRANT pg_read_all_data TO {role} (PostgreSQL 14), or \
             USAGE of each schema and SELECT on each table and sequence",
            names(&hidden)
        )
    });
    let filtered = (!filtered.is_empty()).then(|| {
        let tables = names(&filtered);
        format!("row-level security hides rows of {tables} from role {role}, and pg_dump fails on that: ALTER ROLE {role} BYPASSRLS")
    });
    Ok(hidden.into_iter().chain(filtered).collect())
}

/// Whether the role may make databases on a server.
async fn making(connection: &mut PgConnection, unless: &str) -> Result<Option<String>, sqlx::Error> {
    let may = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolcreatedb OR rolsuper)";
    if !list(connection, may).await?.is_empty() {
        return Ok(None);
    }
    let role = role(connection).await?;
    Ok(Some(format!(
        "role {role} may make no database to restore a backup into: ALTER ROLE {role} CREATEDB, unless {unless}"
    )))
}

/// Whether the role could make the extensions of a database in one that is new on a server.
async fn extensions(
    connection: &mut PgConnection,
    there: &mut PgConnection,
    remedy: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let mut wanted = list(connection, "SELECT extname FROM pg_extension WHERE oid >= 16384 ORDER BY 1").await?;
    let known = list(there, "SELECT name FROM pg_available_extensions").await?;
    let missing: Vec<String> = wanted.extract_if(.., |name| !known.contains(name)).collect();
    let barred = format!(
        "SELECT v.name FROM pg_available_extension_versions v JOIN pg_available_extensions e \
         ON e.name = v.name AND e.default_version = v.version WHERE v.superuser AND NOT v.trusted \
         AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \
         AND NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname IN {HOSTS} AND pg_has_role(oid, 'MEMBER'))"
    );
    let barred = list(there, &barred).await?;
    wanted.retain(|name| barred.contains(name));
    let role = role(there).await?;
    let missing = (!missing.is_empty()).then(|| {
        format!("the server that backups are restored on has no extension {}: install it there", names(&missing))
    });
    let barred = (!wanted.is_empty()).then(|| {
        let all = names(&wanted);
        format!("only a superuser makes extension {all}, so that role {role} can restore no backup of this database: {remedy}")
    });
    Ok(missing.into_iter().chain(barred).collect())
}

/// Whether the role could put a restored backup in the database's place.
async fn replacing(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let role = role(connection).await?;
    let options = if two_rights(connection).await? { format!(" {BOTH}") } else { String::new() };
    let owner = format!(
        "SELECT format('GRANT %I TO %I%s', pg_get_userbyid(datdba), current_user, \
         CASE WHEN pg_has_role(datdba, 'MEMBER') THEN '{options}' ELSE '' END) FROM pg_database \
         WHERE datname = current_database() AND {}",
        lacks(connection, "datdba").await?
    );
    let owner = list(connection, &owner).await?.pop();
    let owner = owner.map(|remedy| {
        format!("role {role} does not own the database, which onRollback: Restore gives another name: {remedy}")
    });
    let sessions = "SELECT DISTINCT quote_ident(usename) FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid \
                    WHERE datname = current_database() AND NOT rolsuper AND NOT pg_has_role(usesysid, 'USAGE') \
                    AND NOT pg_has_role('pg_signal_backend', 'USAGE') ORDER BY 1";
    let sessions = list(connection, sessions).await?;
    let sessions = (!sessions.is_empty()).then(|| {
        let all = names(&sessions);
        format!("role {role} may not end sessions of {all}, which onRollback: Restore does: GRANT pg_signal_backend TO {role}")
    });
    let owners = owners(connection).await?;
    Ok(owner.into_iter().chain(sessions).chain(owners).collect())
}

/// Whether the role could restore what others own as theirs.
pub(super) async fn owners(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let role = role(connection).await?;
    let strangers = format!(
        "SELECT DISTINCT quote_ident(pg_get_userbyid(owner)) FROM ({OBJECTS}) o WHERE NOT pg_has_role(owner, 'MEMBER') ORDER BY 1"
    );
    let strangers = list(connection, &strangers).await?;
    if !strangers.is_empty() {
        let all = names(&strangers);
        return Ok(Some(format!(
            "a restore keeps owners, and role {role} is no member of {all}: GRANT {all} TO {role}, or name a superuser's URL in directUrlFrom"
        )));
    }
    if two_rights(connection).await? {
        let halves = format!(
            "SELECT DISTINCT quote_ident(pg_get_userbyid(owner)) FROM ({OBJECTS}) o WHERE {} ORDER BY 1",
            lacks(connection, "owner").await?
        );
        let halves = list(connection, &halves).await?;
        if !halves.is_empty() {
            let all = names(&halves);
            return Ok(Some(format!(
                "a restore keeps owners, and role {role} is a member of {all} without the right to act as such: GRANT {all} TO {role} {BOTH}, \
                 or name a superuser's URL in directUrlFrom"
            )));
        }
    }
    // Rights to schemas are restored after what stands in them.
    let guests = format!(
        "SELECT DISTINCT format('%I in %I', pg_get_userbyid(owner), nspname) FROM ({OBJECTS}) o \
         WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) AND NOT pg_has_role(owner, nspowner, 'USAGE') \
         AND (nspname <> 'public' OR current_setting('server_version_num')::int >= 150000) \
         AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) ORDER BY 1"
    );
    let guests = list(connection, &guests).await?;
    Ok((!guests.is_empty()).then(|| {
        let all = names(&guests);
        format!("only a superuser restores with its owner what a role owns in another one's schema ({all}): name such a URL in directUrlFrom")
    }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("pg_restore (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 150_018, false)]
    #[case("pg_restore (PostgreSQL) 15.18", 170_002, true)]
    #[case("pg_restore (PostgreSQL) 18beta1", 150_018, false)]
    #[case("pg_restore (PostgreSQL) 17.2", 130_000, false)]
    fn a_program_that_is_older_than_the_server_is_known(#[case] own: &str, #[case] server: u32, #[case] is: bool) {
        let told = older(own, server);
        assert_eq!(told.is_some(), is, "{told:?}");
    }
}
