//! What a CEL expression is made of. Its variables, and its loops: functions that look at each element of a list or map (all, exists, filter, map and
//! whatever else the language makes such of). Counted in what was parsed: a text can write them in many ways.

use cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr},
};

/// How many loops are inside each other at most. Recursive: only where there is stack for every text that is parsed.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    let most = |all: &mut dyn Iterator<Item = &IdedExpr>| all.map(depth).max().unwrap_or(0);
    match &expression.expr {
        Expr::Comprehension(each) => {
            let inside = 1 + depth(&each.loop_cond).max(depth(&each.loop_step));
            most(&mut [&each.iter_range, &each.accu_init, &each.result].into_iter()).max(inside)
        }
        Expr::Call(call) => most(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::Select(select) => depth(&select.operand),
        Expr::List(list) => most(&mut list.elements.iter()),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(value) => value.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
    }
}

fn entry_depth(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::StructField(field) => depth(&field.value),
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
    }
}

/// The first variable that is neither known nor a loop's own. Recursive, as [`depth`].
pub(super) fn unknown(expression: &IdedExpr, known: &[&str]) -> Option<String> {
    let first = |mut all: &mut dyn Iterator<Item = &IdedExpr>| Iterator::find_map(&mut all, |it| unknown(it, known));
    match &expression.expr {
        Expr::Ident(name) => (!known.contains(&name.as_str())).then(|| name.clone()),
        Expr::Comprehension(each) => {
            let own = [Some(&each.iter_var), each.iter_var2.as_ref(), Some(&each.accu_var)];
            let known: Vec<&str> = known.iter().copied().chain(own.into_iter().flatten().map(String::as_str)).collect();
            let inside =
                || [&each.loop_cond, &each.loop_step, &each.result].into_iter().find_map(|it| unknown(it, &known));
            first(&mut [&each.iter_range, &each.accu_init].into_iter()).or_else(inside)
        }
        Expr::Call(call) => first(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::Select(select) => unknown(&select.operand, known),
        Expr::List(list) => first(&mut list.elements.iter()),
        Expr::Map(map) => map.entries.iter().find_map(|entry| unknown_in(&entry.expr, known)),
        Expr::Struct(value) => value.entries.iter().find_map(|entry| unknown_in(&entry.expr, known)),
        Expr::Unspecified | Expr::Literal(_) => None,
    }
}

fn unknown_in(entry: &EntryExpr, known: &[&str]) -> Option<String> {
    match entry {
        EntryExpr::StructField(field) => unknown(&field.value, known),
        EntryExpr::MapEntry(entry) => unknown(&entry.key, known).or_else(|| unknown(&entry.value, known)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("json.a == 1 && status in [200, 204] && headers['x'] == 'body.a'", None)]
    #[case("body.status == 'ok'", Some("body"))]
    #[case("true || [{'a': bdy}].size() > 0", Some("bdy"))]
    #[case("json.all(x, x.ok) && json.exists_one(y, y == 1) && json.map(z, z > 1, z + 1).size() == 1", None)]
    #[case("json.all(x, x == y)", Some("y"))]
    #[case("json.all(x, x.ok) && x.ok", Some("x"))]
    #[case("has(json.a) && has(jsn.a)", Some("jsn"))]
    fn variables_that_nobody_declares_are_found(#[case] text: &str, #[case] name: Option<&str>) {
        let program = cel::Program::compile(text).unwrap();
        assert_eq!(super::unknown(program.expression(), &["status", "headers", "json"]).as_deref(), name);
    }

    #[rstest]
    #[case("json.a == 1 && '.all(.all(' != ''", 0)]
    #[case("json.a.filter(x, x > 1).map(x, x).size() > 0 && json.b.all(x, x == ')')", 1)]
    #[case("json. all(x, json. all(y, true))", 2)]
    #[case("json.//\nall(x, json.all(y, '\\'' == y))", 2)]
    #[case("json.existsOne(x, json.exists_one(y, y == x))", 2)]
    #[case("[{'a': json.map(x, [json.filter(y, y > json.size())])}].size() > 0", 2)]
    #[case("json.filter(x, x in json.filter(y, y > 1)).size() == 0", 2)]
    fn loops_are_found_however_they_are_written(#[case] text: &str, #[case] depth: usize) {
        assert_eq!(super::depth(cel::Program::compile(text).unwrap().expression()), depth);
    }
}
