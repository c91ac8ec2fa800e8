//! What an HTTP answer must be like (`spec.checks[].http.expect`). Faults name what was expected and never
//! quote a body: it may have what readers of the release must not see.

use std::collections::BTreeMap;

use cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    loops,
    numbers::{self, ByZero},
};
use crate::api::Expect;

/// An HTTP answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, if all of it came.
    pub body: Vec<u8>,
}

/// The first thing that is not as expected.
pub fn fault(expect: &Expect, response: &Response) -> Option<String> {
    let Response { status, headers, body } = response;
    match expect.status {
        Some(wanted) if wanted != i32::from(*status) => return Some(format!("expected status {wanted}")),
        None if !(200..300).contains(status) && !expect.cel.as_deref().is_some_and(judges_status) => {
            return Some("expected status 200 to 299".into());
        }
        _ => {}
    }
    for (name, wanted) in &expect.headers {
        let found = headers.get(&name.to_ascii_lowercase());
        if found != Some(wanted) {
            let what = if found.is_some() { "has another value" } else { "is missing" };
            return Some(format!("expected header {name}: {wanted}, which {what}"));
        }
    }
    if expect.json.is_empty() && expect.cel.is_none() {
        return None;
    }
    let json = serde_json::from_slice::<Value>(body);
    if let Err(error) = &json
        && !expect.json.is_empty()
    {
        return Some(format!("expected JSON; it ends being so at line {}, column {}", error.line(), error.column()));
    }
    let json = json.unwrap_or_default();
    let differs = |(path, wanted): &(&String, &Value)| !is_same(at(&json, path), wanted);
    if let Some((path, wanted)) = expect.json.iter().find(differs) {
        let what = if at(&json, path).is_some() { "has another value" } else { "is missing" };
        return Some(format!("expected JSON field {path} = {wanted}, which {what}"));
    }
    let text = expect.cel.as_ref()?;
    match evaluate(text, response, json) {
        Ok(true) => None,
        Ok(false) => Some(format!("expected {text}")),
        Err(error) => Some(format!("expected {text}, which cannot be said: {error}")),
    }
}

/// How many answers are judged at the same time: a body of 1 MiB can be many times as much memory as values.
pub const AT_ONCE: usize = 2;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Does work on an answer's body where it holds up no other task. None: it panicked.
pub async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _turn = TURNS.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}

/// A value by a way with dots.
fn at<'a>(json: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(json, |value, key| match value {
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

/// Numbers are the same if their values are.
fn is_same(found: Option<&Value>, wanted: &Value) -> bool {
    found.is_some_and(|found| match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => found.total_cmp(&wanted).is_eq(),
        _ => found == wanted,
    })
}

/// The stack on which expressions are read: a text of 1024 letters, the most that a manifest may have, needs more
/// than a thread commonly has, and a stack that overflows ends the operator.
const STACK: usize = 256 << 20;
/// Brackets in brackets beyond which a text is refused; nobody writes so many.
const DEEPEST: usize = 20;

/// Whether a CEL expression can be read, and looks at nothing but what there is.
///
/// # Errors
/// Where it cannot.
pub fn compiles(text: &str) -> Result<(), String> {
    let known = |program: Program| match loops::unknown(program.expression(), &VARIABLES) {
        Some(name) => Err(format!("there is no {name}; there are {}", VARIABLES.join(", "))),
        None => numbers::replace(&mut program.expression().clone(), ByZero::Fails),
    };
    apart(|| program(text).and_then(known)).unwrap_or_else(|| Err("it is not understood".into()))
}

/// Does work with expressions where neither a panic nor deep recursion reaches the operator. None: it panicked.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".into()).stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

/// Refuses what would take too much stack to parse. Brackets that open count in words, too, those that close do not: no
/// word hides a bracket.
fn is_shallow(text: &str) -> Result<(), String> {
    let (mut open, mut quote, mut letters) = (0_usize, None, text.chars());
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => drop(letters.next()),
            (Some(end), letter) if letter == end => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (_, '(' | '[' | '{') => open += 1,
            (None, ')' | ']' | '}') => open = open.saturating_sub(1),
            _ => {}
        }
        if open > DEEPEST {
            return Err(format!("more than {DEEPEST} brackets in each other"));
        }
    }
    Ok(())
}

/// What evaluating an expression may take at most, in bytes that are copied or compared. A text of 1024 letters can join
/// a list with itself a hundred times, or compare all of a body with each of its values: of 1 MiB that would take more
/// memory than the operator has, or hours.
const MOST_WORK: usize = 64 << 20;

/// Refuses answers that are too long for an expression.
fn is_affordable(program: &Program, text: &str, body: usize, json: &Value) -> Result<(), String> {
    fn count(json: &Value) -> usize {
        1 + match json {
            Value::Array(list) => list.iter().map(count).sum(),
            Value::Object(map) => map.values().map(count).sum(),
            _ => 0,
        }
    }
    let values = count(json);
    let size = values.saturating_mul(size_of::<Cel>()).saturating_add(body);
    let joined = size.saturating_mul(1 + text.matches('+').count());
    let looped = loops::depth(program.expression()) > 0;
    let work = if looped { joined.saturating_mul(values) } else { joined };
    if work <= MOST_WORK {
        return Ok(());
    }
    let why = if looped { "all, exists, filter and map" } else { "so many +" };
    Err(format!("the answer is too long for {why}: {values} values in {body} bytes"))
}

/// What an expression can look at.
const VARIABLES: [&str; 3] = ["status", "headers", "json"];

fn program(text: &str) -> Result<Program, String> {
    is_shallow(text)?;
    let told = |error: cel::ParseErrors| error.to_string().lines().next().unwrap_or_default().to_owned();
    let program = Program::compile(text).map_err(told)?;
    // One in another takes as long as the list is long, squared: minutes with a body of 1 MiB.
    if loops::depth(program.expression()) > 1 {
        return Err("all, exists, filter and map inside each other take too long".into());
    }
    Ok(program)
}

/// Whether an expression looks at the status itself, whose default is not meant then. A loop's own variable may have its name.
fn looks_at_status(program: &Program) -> bool {
    loops::unknown(program.expression(), &VARIABLES[1..]).as_deref() == Some(VARIABLES[0])
}

fn judges_status(text: &str) -> bool {
    apart(|| program(text).is_ok_and(|program| looks_at_status(&program))).unwrap_or(false)
}

fn evaluate(text: &str, response: &Response, mut json: Value) -> Result<bool, String> {
    let Response { status, headers, body } = response;
    let work = || {
        let program = program(text)?;
        is_affordable(&program, text, body.len(), &json)?;
        numbers::doubles(&mut json);
        match execute(&program, text, ByZero::Fails, *status, headers, &json) {
            Ok(Cel::Bool(answer)) => Ok(answer),
            Ok(_) => Err("it is neither true nor false".into()),
            Err(Lack::Data(why) | Lack::Sense(why) | Lack::Value(why)) => Err(why),
        }
    };
    apart(work).unwrap_or_else(|| Err("it cannot be evaluated".into()))
}

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The answer has none.
    Data(String),
    /// The answer makes no sense.
    Sense(String),
    /// The expression makes none, or finds no number in an answer that does.
    Value(String),
}

/// The number that a CEL expression finds in an answer; infinite ones are numbers. The numbers of a body are
/// doubles, as JSON has them: of whole ones `json.errors / json.total` would be 0 where it is a half.
///
/// # Errors
/// Why there is none.
pub fn number(text: &str, response: &Response) -> Result<f64, Lack> {
    let broken = || Err(Lack::Sense("value cannot be evaluated".into()));
    apart(|| find(text, response)).unwrap_or_else(broken)
}

fn find(text: &str, response: &Response) -> Result<f64, Lack> {
    let Response { status, headers, body } = response;
    let program = program(text).map_err(|why| Lack::Value(format!("value is no CEL expression: {why}")))?;
    let references = program.references();
    if !(200..300).contains(status) && !looks_at_status(&program) {
        return Err(Lack::Sense(format!("status {status}")));
    }
    let mut json = match serde_json::from_slice::<Value>(body) {
        Ok(json) => json,
        Err(error) if references.has_variable("json") => {
            let why = format!("status {status}, no JSON from line {}, column {}", error.line(), error.column());
            return Err(Lack::Sense(why));
        }
        Err(_) => Value::Null,
    };
    is_affordable(&program, text, body.len(), &json).map_err(Lack::Sense)?;
    numbers::doubles(&mut json);
    #[expect(clippy::cast_precision_loss, reason = "what is measured has no use for more than 53 bits")]
    match execute(&program, text, ByZero::Counts, *status, headers, &json)? {
        Cel::Float(number) if number.is_nan() => {
            Err(Lack::Data("the value is NaN, as of a division by nothing".into()))
        }
        Cel::Float(number) => Ok(number),
        Cel::Int(number) => Ok(number as f64),
        Cel::UInt(number) => Ok(number as f64),
        Cel::Null => Err(Lack::Data("the value is null".into())),
        _ => Err(Lack::Value("the value is no number".into())),
    }
}

fn execute(
    program: &Program,
    text: &str,
    by_zero: ByZero,
    status: u16,
    headers: &BTreeMap<String, String>,
    json: &Value,
) -> Result<Cel, Lack> {
    let mut expression = program.expression().clone();
    numbers::replace(&mut expression, by_zero).map_err(Lack::Value)?;
    let mut context = Context::with_env(numbers::FUNCTIONS.clone());
    context.add_variable_from_value("status", i64::from(status));
    if context.add_variable("headers", headers).is_err() || context.add_variable("json", json).is_err() {
        return Err(Lack::Sense("it cannot be evaluated".into()));
    }
    context.resolve(&expression).map_err(|error| match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => Lack::Data(kind(&error, text)),
        error => Lack::Value(kind(&error, text)),
    })
}

/// What went wrong, without values of the body: a key may be one that the expression computes from it.
fn kind(error: &ExecutionError, text: &str) -> String {
    match error {
        ExecutionError::NoSuchKey(key) if text.contains(key.as_str()) => format!("there is no {key}"),
        ExecutionError::NoSuchKey(_) => "there is no such key".into(),
        ExecutionError::UndeclaredReference(name) => {
            format!("there is no {name}; there are status, headers, json")
        }
        ExecutionError::IndexOutOfBounds(_) => "a list is shorter".into(),
        error if numbers::told(error).is_some() => numbers::told(error).unwrap_or_default().into(),
        _ => "its types do not fit the answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn response(status: u16, body: &str) -> Response {
        let headers = BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]);
        Response { status, headers, body: body.as_bytes().to_vec() }
    }

    const HEALTHY: &str = r#"{"status":"healthy","database":"connected","checks":[{"ms":12}],"password":"hunter2"}"#;

    #[rstest]
    #[case::nothing_asked(json!({}), 204, "", None)]
    #[case::an_error(json!({}), 500, "", Some("expected status 200 to 299"))]
    #[case::a_redirect(json!({}), 302, "", Some("expected status 200 to 299"))]
    #[case::refused_as_it_should(json!({"status": 401}), 401, "", None)]
    #[case::open_to_all(json!({"status": 401}), 200, HEALTHY, Some("expected status 401"))]
    #[case::header(json!({"headers": {"Content-Type": "application/json"}}), 200, "", None)]
    #[case::header_missing(json!({"headers": {"x-a": "1"}}), 200, "", Some("expected header x-a: 1, which is missing"))]
    #[case::fields(json!({"json": {"status": "healthy", "database": "connected"}}), 200, HEALTHY, None)]
    #[case::in_a_list(json!({"json": {"checks.0.ms": 12.0}}), 200, HEALTHY, None)]
    #[case::another(json!({"json": {"database": "x"}}), 200, HEALTHY, Some(r#"expected JSON field database = "x", which has another value"#))]
    #[case::missing(json!({"json": {"redis": "connected"}}), 200, HEALTHY, Some(r#"expected JSON field redis = "connected", which is missing"#))]
    #[case::no_json(json!({"json": {"a": 1}}), 200, "<html>", Some("expected JSON; it ends being so at line 1, column 1"))]
    #[case::cel(json!({"cel": "status == 200 && json.checks[0].ms < 50"}), 200, HEALTHY, None)]
    #[case::cel_headers(json!({"cel": "headers['content-type'].startsWith('application/')"}), 200, HEALTHY, None)]
    #[case::cel_false(json!({"cel": "json.checks.size() > 1"}), 200, HEALTHY, Some("expected json.checks.size() > 1"))]
    #[case::cel_unknown(json!({"cel": "json.nope == 1"}), 200, HEALTHY, Some("expected json.nope == 1, which cannot be said: there is no nope"))]
    #[case::cel_computed(json!({"cel": "json.checks[0][json.password] == 1"}), 200, HEALTHY, Some("expected json.checks[0][json.password] == 1, which cannot be said: there is no such key"))]
    #[case::cel_refused(json!({"cel": "status == 401 || status == 403"}), 403, "", None)]
    #[case::cel_open_to_all(json!({"cel": "status == 401 || status == 403"}), 200, HEALTHY, Some("expected status == 401 || status == 403"))]
    #[case::cel_of_a_field(json!({"cel": "json.status == 'healthy'"}), 500, HEALTHY, Some("expected status 200 to 299"))]
    #[case::cel_of_a_loop(json!({"cel": "json.checks.all(status, status.ms < 50)"}), 500, HEALTHY, Some("expected status 200 to 299"))]
    #[case::cel_beside_a_status(json!({"status": 500, "cel": "status >= 400"}), 403, "", Some("expected status 500"))]
    #[case::cel_no_expression(json!({"cel": "status =="}), 403, "", Some("expected status 200 to 299"))]
    #[case::cel_no_answer(json!({"cel": "json.checks"}), 200, HEALTHY, Some("expected json.checks, which cannot be said: it is neither true nor false"))]
    fn the_first_thing_that_differs_is_named(
        #[case] expect: Value,
        #[case] status: u16,
        #[case] body: &str,
        #[case] fault: Option<&str>,
    ) {
        let expect: Expect = serde_json::from_value(expect).unwrap();
        let found = super::fault(&expect, &response(status, body));
        assert_eq!(found.as_deref(), fault);
        assert!(!found.unwrap_or_default().contains("hunter2"));
    }

    #[test]
    fn no_text_that_a_manifest_may_have_ends_the_operator() {
        let answer = response(200, HEALTHY);
        let all = [("(", "1", ")"), ("!", "true", ""), ("-", "status", ""), ("[", "1", "]"), ("a.b(", "1", ")")];
        let chains = [("status+", "1", ""), ("json.", "a", ""), ("true?1:", "1", ""), ("true&&", "true", "")];
        for (before, middle, after) in all.into_iter().chain(chains) {
            let times = 1020 / (before.len() + after.len());
            let text = format!("{}{middle}{}", before.repeat(times), after.repeat(times));
            let began = std::time::Instant::now();
            let _ = (compiles(&text), number(&text, &answer));
            assert!(began.elapsed().as_secs() < 10, "{before}: {:?}", began.elapsed());
        }
        assert_eq!(compiles(&"(".repeat(500)).unwrap_err(), "more than 20 brackets in each other");
    }

    /// Each of these took minutes, or gigabytes, of the longest body that is read.
    #[rstest]
    #[case::a_whole_in_a_loop("json.all(x, x != json)", false)]
    #[case::a_search_in_a_loop("json.all(x, !(json in json))", false)]
    #[case::joined_in_a_loop("json.map(x, json + json).size() > 0", false)]
    #[case::hidden_by_a_space("json. map(x, json + json).size() > 0", false)]
    #[case::by_another_name("json.existsOne(x, json == x)", false)]
    #[case::joined_often("(JOINED).size() > 0", false)]
    #[case::at_a_place("json[0] == 0", true)]
    #[case::its_size("json.size() > 100", true)]
    fn no_body_makes_an_expression_take_long(#[case] text: &str, #[case] answered: bool) {
        let text = text.replace("JOINED", &["json"; 150].join("+"));
        let body = format!("[{}0]", "0,".repeat(500_000));
        let began = std::time::Instant::now();
        let expect: Expect = serde_json::from_value(json!({"cel": text})).unwrap();
        let found = fault(&expect, &response(200, &body));
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
        assert_eq!(found.is_none(), answered, "{found:?}");
        assert!(answered || found.unwrap().contains("the answer is too long for "));
    }

    #[test]
    fn an_answer_of_usual_length_may_be_looked_through() {
        let items: Vec<Value> = (0..300).map(|ms| json!({"name": "service", "ms": ms})).collect();
        let expect: Expect = serde_json::from_value(json!({"cel": "json.items.all(x, x.ms < 300)"})).unwrap();
        assert_eq!(fault(&expect, &response(200, &json!({"items": items}).to_string())), None);
    }

    #[rstest]
    #[case("json.a == 1", true)]
    #[case("json.a ==", false)]
    #[case("'", false)]
    #[case("", false)]
    #[case("json.a.filter(x, x > 1).size() > 0 && json.b.all(x, x.c == ')')", true)]
    #[case("json.a.all(x, json.b .exists (y, y == x))", false)]
    #[case("json.a.map(x, [json.a.map(y, y)])", false)]
    #[case("json. all(x, json. all(y, true))", false)]
    #[case("json.a == '.all(.all('", true)]
    fn what_is_no_expression_is_told(#[case] text: &str, #[case] good: bool) {
        assert_eq!(compiles(text).is_ok(), good);
    }

    const POOL: &str = r#"{"active":3,"idle":5,"total":4,"zero":0,"ms":2.5,"n":-7,"code":200,"version":2,"at":1,"x":"12",
        "items":[{"n":1},{"n":2},{"n":3}]}"#;
    const CUTS_OFF: &str = "/ of two whole numbers cuts off: write double(...) around one of them (size(), int(), status \
                            and numbers without a dot are whole, those of json are not)";

    /// Numbers of JSON, with and without a dot, are counted together with each other and with those of the text.
    #[rstest]
    #[case("json.active == 3 && json.active == 3.0 && json.active == 3u && json.active != 4", Ok(true))]
    #[case("json.active > 2 && json.active < 3.5 && json.active <= json.total && 2 < json.active", Ok(true))]
    #[case("json.active / json.total < 0.8", Ok(true))]
    #[case("json.active / json.total < 0.7", Ok(false))]
    #[case("json.active / json.total == 0.75 && json.active / 2 == 1.5 && 1 / json.total == 0.25", Ok(true))]
    #[case("json.active * 100 / json.total < 80", Ok(true))]
    #[case("json.active * 100 / json.total < 75", Ok(false))]
    #[case("100 * json.active / json.total == 75", Ok(true))]
    #[case("json.active + 1 <= json.total && 1u + json.active == 4", Ok(true))]
    #[case("json.active - json.idle < 0 && json.active - json.idle == -2 && json.active - 5 == -2", Ok(true))]
    #[case("-json.active == -3 && json.n == -7 && json.n < -6 && json.n + 8 > 0", Ok(true))]
    #[case("json.ms * 2 == 5 && json.ms + json.active == 5.5 && json.ms > 2", Ok(true))]
    #[case("status == 200 && status / 100 == 2 && status + 0.5 > 200", Ok(true))]
    #[case("size(json.items) == 3 && json.items.size() - 1 == 2 && json.active == size(json.items)", Ok(true))]
    #[case("json.items[0].n == 1 && json.items[json.at].n == 2", Ok(true))]
    #[case("json.items.all(i, i.n + 1 > 1 && i.n / 2 > 0.4) && json.items.exists(i, i.n * 2 == 4)", Ok(true))]
    #[case("json.items.map(i, i.n * 10) == [10, 20, 30] && json.items.filter(i, i.n - 1 > 0).size() == 2", Ok(true))]
    #[case("json.items.exists_one(i, i.n == 3)", Ok(true))]
    #[case("int(json.ms) == 2 && int(json.active) == 3 && int(json.x) == 12 && double(json.x) / 5 == 2.4", Ok(true))]
    #[case("json.code in [200, 204] && 200 in [json.code] && json.total % 2 == 0 && json.active % 2 == 1", Ok(true))]
    #[case("string(json.version) == '2' && 'v' + string(json.version) == 'v2'", Ok(true))]
    #[case("(json.active == 3 ? json.active : 1) / json.total < 0.8", Ok(true))]
    #[case("double(size(json.items)) / json.items.size() == 1 && int(7.0 / 2) == 3", Ok(true))]
    #[case("json.zero == 0 || json.active / json.zero > 0", Ok(true))]
    #[case("[1] + [json.active] == [1, 3] && 'a' + 'b' == 'ab'", Ok(true))]
    #[case("json.active / json.zero > 0.8", Err("it divides by 0"))]
    #[case("json.zero / json.zero != 1", Err("it divides by 0"))]
    #[case("json.ms % 2 == 0", Err("% is for whole numbers"))]
    #[case("size(json.items) / size(json) < 0.8", Err(CUTS_OFF))]
    #[case("int(json.active) * 100 / int(json.total) < 80", Err(CUTS_OFF))]
    #[case("json.active < 1 / 2", Err(CUTS_OFF))]
    #[case("[1, 2].exists(i, i / 2 == 0)", Err(CUTS_OFF))]
    #[case("json.x + 1 == 13", Err("its types do not fit the answer"))]
    #[case("json.active / json.x > 1", Err("its types do not fit the answer"))]
    fn numbers_count_as_json_has_them(#[case] text: &str, #[case] expected: Result<bool, &str>) {
        let expect: Expect = serde_json::from_value(json!({"cel": text})).unwrap();
        let told = match expected {
            Ok(true) => None,
            Ok(false) => Some(format!("expected {text}")),
            Err(why) => Some(format!("expected {text}, which cannot be said: {why}")),
        };
        assert_eq!(fault(&expect, &response(200, POOL)), told);
    }

    #[rstest]
    #[case("json.a / json.b < 0.8 && json.a / 2 < 1 && status / 100 == 2", true)]
    #[case("size(json.a) / size(json.b) < 0.8", false)]
    #[case("json.a.size() * 100 / json.b.size() < 80", false)]
    #[case("json.a.all(x, x.n < 1 / 2)", false)]
    #[case("[{'a': 1 / 2}].size() > 0", false)]
    #[case("(status == 200 ? 1 : 2) / int(json.b) < 1", false)]
    #[case("double(json.a.size()) / json.b.size() < 0.8", true)]
    fn what_would_be_cut_off_is_told_beforehand(#[case] text: &str, #[case] good: bool) {
        assert_eq!(compiles(text), if good { Ok(()) } else { Err(CUTS_OFF.to_owned()) });
    }

    const LATENCY: &str = r#"{"data":[{"p95":0.25}],"errors":1,"total":2,"none":null,"word":"hunter2","zero":0}"#;

    #[rstest]
    #[case("json.data[0].p95", 200, LATENCY, Ok(0.25))]
    #[case::whole_numbers_divide("json.errors / json.total", 200, LATENCY, Ok(0.5))]
    #[case::size("json.data.size()", 200, LATENCY, Ok(1.0))]
    #[case::status("status == 404 ? 0.0 : json.p95", 404, "", Err("status 404, no JSON from line 1, column 0"))]
    #[case::status_alone("status", 503, "", Ok(503.0))]
    #[case::header("double(headers['content-type'].size())", 200, "", Ok(16.0))]
    #[case::infinite("json.errors / json.zero", 200, LATENCY, Ok(f64::INFINITY))]
    #[case::nan("json.zero / json.zero", 200, LATENCY, Err("no data: the value is NaN, as of a division by nothing"))]
    #[case::missing("json.p99", 200, LATENCY, Err("no data: there is no p99"))]
    #[case::short("json.data[1].p95", 200, LATENCY, Err("no data: a list is shorter"))]
    #[case::null("json.none", 200, LATENCY, Err("no data: the value is null"))]
    #[case::word("json.word", 200, LATENCY, Err("the value is no number"))]
    #[case::refused("json.p95", 401, LATENCY, Err("status 401"))]
    #[case::redirect("json.p95", 302, "", Err("status 302"))]
    #[case::status_of_a_loop(
        "double(json.data.filter(status, status.p95 > 0).size())",
        500,
        LATENCY,
        Err("status 500")
    )]
    #[case::no_json("json.p95", 200, "<html>", Err("status 200, no JSON from line 1, column 1"))]
    #[case::mixed("json.errors / 2 + status", 200, LATENCY, Ok(200.5))]
    #[case::cut_off("json.data.size() / json.size()", 200, LATENCY, Err(CUTS_OFF))]
    #[case::unknown("body.x", 200, LATENCY, Err("there is no body; there are status, headers, json"))]
    fn an_expression_finds_a_number(
        #[case] text: &str,
        #[case] status: u16,
        #[case] body: &str,
        #[case] expected: Result<f64, &str>,
    ) {
        let found = number(text, &response(status, body)).map_err(|lack| match lack {
            Lack::Data(why) => format!("no data: {why}"),
            Lack::Sense(why) | Lack::Value(why) => why,
        });
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case::no_expression("json.", true)]
    #[case::cut_off("size(json.data) / size(json)", true)]
    #[case::no_such_variable("body.x", true)]
    #[case::a_word("json.word", true)]
    #[case::types("json.word + 1", true)]
    #[case::too_long("json.data.all(x, x != json) ? 1 : 2", false)]
    fn what_only_another_expression_helps_is_told_from_the_rest(#[case] text: &str, #[case] refused: bool) {
        let long = format!("[{}0]", "0,".repeat(500_000));
        let body = if refused { LATENCY } else { &long };
        let lack = number(text, &response(200, body)).unwrap_err();
        assert_eq!(matches!(lack, Lack::Value(_)), refused, "{lack:?}");
    }
}
