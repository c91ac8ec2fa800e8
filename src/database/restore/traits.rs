//! What a database is beside its contents: owner, encoding, limits, rights, and settings of its sessions. A dump has none
//! of it.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgDatabaseError};

use crate::database::{connection::told, scratch::LIKE};

use super::{quoted, run};

/// Makes an empty database like another one, of the same owner, in the place of one that was left.
///
/// # Errors
/// The server's word.
pub async fn make(connection: &mut PgConnection, like: &str, name: &str) -> Result<(), String> {
    // The default tablespace is everybody's unless it is named: then it needs a right.
    let query = format!(
        "SELECT {LIKE} || coalesce((SELECT format(' TABLESPACE %I', spcname) FROM pg_tablespace t WHERE t.oid = dattablespace \
         AND spcname <> 'pg_default'), ''), quote_ident(pg_get_userbyid(datdba)), quote_ident(current_user) \
         FROM pg_database d WHERE datname = $1"
    );
    let (traits, owner, role): (String, String, String) = sqlx::query_as(AssertSqlSafe(query))
        .bind(like)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| told(&error))?;
    let gone = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    run(connection, &gone).await.map_err(|error| told(&error))?;
    run(connection, &format!("CREATE DATABASE {name} TEMPLATE template0 {traits} OWNER {owner}")).await.map_err(
        |error| {
            let denied = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .is_some_and(|code| code == "42501");
            let remedy =
                if denied { format!("; ALTER ROLE {role} CREATEDB; GRANT {owner} TO {role}") } else { String::new() };
            format!("no database of {owner} can be made beside it: {}{remedy}", told(&error))
        },
    )
}

/// Gives a database the rights and settings of another one; which settings could not be given, such as those of a superuser.
///
/// # Errors
/// They cannot be read, or a right cannot be given: without it those who have it now would stand before a closed door.
pub async fn copy(connection: &mut PgConnection, from: &str, to: &str) -> Result<Vec<String>, String> {
    let mut lost = Vec::new();
    for (statement, what) in rights(connection, from, to).await.map_err(|error| told(&error))? {
        let given = run(connection, &statement).await;
        given
            .map_err(|error| format!("{what} in the database cannot be given to the restored one: {}", told(&error)))?;
    }
    for Setting { role, name, value } in settings(connection, from).await.map_err(|error| told(&error))? {
        let given = give(connection, to, role.as_deref(), &name, &value).await;
        if let Err(error) = given {
            let of = role.map(|role| format!(" of {role}")).unwrap_or_default();
            lost.push(format!("setting {name}{of} ({})", why(&error)));
        }
    }
    Ok(lost)
}

/// The server's word on a right that is missing: the detail names it.
fn why(error: &sqlx::Error) -> String {
    let said = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    said.and_then(PgDatabaseError::detail).map_or_else(|| told(error), |detail| detail.trim_end_matches('.').to_owned())
}

/// The comment of a database.
///
/// # Errors
/// The server's word.
pub async fn comment(connection: &mut PgConnection, database: &str) -> Result<String, String> {
    let query =
        "SELECT coalesce(shobj_description(oid, 'pg_database') || E'\\n', '') FROM pg_database WHERE datname = $1";
    sqlx::query_scalar(query).bind(database).fetch_one(connection).await.map_err(|error| told(&error))
}

/// Statements that give a database the rights, and the limit of connections, of another one.
async fn rights(connection: &mut PgConnection, from: &str, to: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let query = "SELECT datconnlimit, datacl IS NOT NULL FROM pg_database WHERE datname = $1";
    let (limit, given): (i32, bool) = sqlx::query_as(query).bind(from).fetch_one(&mut *connection).await?;
    let mut all = Vec::new();
    if limit >= 0 {
        all.push((format!("ALTER DATABASE {to} CONNECTION LIMIT {limit}"), "the limit of connections".to_owned()));
    }
    if !given {
        return Ok(all);
    }
    // What is not given by name everybody has.
    all.push((format!("REVOKE ALL ON DATABASE {to} FROM PUBLIC"), "rights of everybody".to_owned()));
    let query = "SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
                 CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END \
                 FROM pg_database, aclexplode(datacl) WHERE datname = $1 AND grantee <> datdba";
    let rights: Vec<(String, String, String)> = sqlx::query_as(query).bind(from).fetch_all(connection).await?;
    for (right, who, option) in rights {
        all.push((format!("GRANT {right} ON DATABASE {to} TO {who}{option}"), format!("right {right} of {who}")));
    }
    Ok(all)
}

/// A setting of sessions in a database, of all roles or of one.
struct Setting {
    role: Option<String>,
    name: String,
    value: String,
}

async fn settings(connection: &mut PgConnection, database: &str) -> Result<Vec<Setting>, sqlx::Error> {
    let query = "SELECT CASE setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(setrole)::text END, \
                 split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1) \
                 FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase, unnest(setconfig) AS setting \
                 WHERE datname = $1";
    let all: Vec<(Option<String>, String, String)> = sqlx::query_as(query).bind(database).fetch_all(connection).await?;
    Ok(all.into_iter().map(|(role, name, value)| Setting { role, name, value }).collect())
}

/// By way of a transaction's own setting: the server knows which of them are lists, and the next statement is none that the
/// setting is for.
pub async fn give(
    connection: &mut PgConnection,
    to: &str,
    role: Option<&str>,
    name: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    let whose = role.map_or_else(|| format!("DATABASE {to}"), |role| format!("ROLE {} IN DATABASE {to}", quoted(role)));
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT set_config($1, $2, true)").bind(name).bind(value).execute(&mut *transaction).await?;
    run(&mut transaction, &format!("ALTER {whose} SET {} FROM CURRENT", quoted_setting(name))).await?;
    transaction.commit().await
}

/// The name of a setting, which may have two parts.
fn quoted_setting(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}
