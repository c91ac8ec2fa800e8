//! The loops of a CEL expression: functions that look at each element of a list or map (all, exists, filter, map and
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

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
