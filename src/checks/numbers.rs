//! Numbers in CEL expressions. Those of a body are doubles, as JSON has them, and CEL lets doubles and whole numbers be
//! compared, not counted together: `json.active * 100` would be an error. Here they are, as doubles. What `/` would cut off
//! silently, of whole numbers on both sides, is an error.

use std::sync::{Arc, LazyLock};

use cel::{
    Env, ExecutionError, IdedExpr,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        functions::Function,
        types::{CelDouble, CelInt, CelUInt, DYN_TYPE},
        value::{CowVal, Val},
    },
};
use serde_json::Value;

/// Which division a `/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByZero {
    /// What is divided by 0 is an error.
    Fails,
    /// It is infinite, or NaN.
    Counts,
}

/// Why whole numbers are not divided.
const CUTS_OFF: &str = "/ of two whole numbers cuts off: write double(...) around one of them (size(), int(), status \
                        and numbers without a dot are whole, those of json are not)";
const BY_ZERO: &str = "it divides by 0";

// No text can name them: no name has such letters.
const PLUS: &str = "@plus";
const MINUS: &str = "@minus";
const TIMES: &str = "@times";
const OVER: &str = "@over";
const OVER_ANY: &str = "@over_any";
const REST: &str = "@rest";

/// The functions of an expression whose operators were replaced.
pub(super) static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut all = Env::stdlib();
    let own: [(&str, Function); 6] =
        [(PLUS, plus), (MINUS, minus), (TIMES, times), (OVER, over), (OVER_ANY, over_any), (REST, rest)];
    for (name, function) in own {
        // Its name is new: it cannot be there already.
        let _ = all.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], function);
    }
    Arc::new(all)
});

/// All numbers of a body as doubles.
pub(super) fn doubles(json: &mut Value) {
    match json {
        Value::Number(number) => {
            if let Some(double) = number.as_f64().and_then(serde_json::Number::from_f64) {
                *number = double;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(doubles),
        Value::Object(map) => map.values_mut().for_each(doubles),
        _ => {}
    }
}

/// Replaces the operators of an expression by those of this file. Recursive: only where there is stack for every text
/// that is parsed.
///
/// # Errors
/// If whole numbers are divided: a text that says so never says what is meant.
pub(super) fn replace(expression: &mut IdedExpr, by_zero: ByZero) -> Result<(), String> {
    let all = |mut each: &mut dyn Iterator<Item = &mut IdedExpr>| {
        Iterator::try_for_each(&mut each, |it| replace(it, by_zero))
    };
    match &mut expression.expr {
        Expr::Call(call) => {
            all(&mut call.target.as_deref_mut().into_iter().chain(&mut call.args))?;
            replace_call(call, by_zero)
        }
        Expr::Comprehension(each) => all(&mut [
            &mut each.iter_range,
            &mut each.accu_init,
            &mut each.loop_cond,
            &mut each.loop_step,
            &mut each.result,
        ]
        .into_iter()),
        Expr::Select(select) => replace(&mut select.operand, by_zero),
        Expr::List(list) => all(&mut list.elements.iter_mut()),
        Expr::Map(map) => map.entries.iter_mut().try_for_each(|it| replace_in(&mut it.expr, by_zero)),
        Expr::Struct(value) => value.entries.iter_mut().try_for_each(|it| replace_in(&mut it.expr, by_zero)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
    }
}

fn replace_in(entry: &mut EntryExpr, by_zero: ByZero) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => replace(&mut field.value, by_zero),
        EntryExpr::MapEntry(entry) => {
            replace(&mut entry.key, by_zero)?;
            replace(&mut entry.value, by_zero)
        }
    }
}

fn replace_call(call: &mut CallExpr, by_zero: ByZero) -> Result<(), String> {
    let (None, [left, right]) = (&call.target, call.args.as_slice()) else { return Ok(()) };
    // A loop's own sum: the crate knows it by its operator.
    if matches!(&left.expr, Expr::Ident(name) if name.starts_with('@')) {
        return Ok(());
    }
    let name = match call.func_name.as_str() {
        operators::ADD => PLUS,
        operators::SUBSTRACT => MINUS,
        operators::MULTIPLY => TIMES,
        operators::MODULO => REST,
        // The class of a status, as everybody writes it.
        operators::DIVIDE if is_status(left) && matches!(right.expr, Expr::Literal(_)) => return Ok(()),
        operators::DIVIDE if is_whole(left) && is_whole(right) => return Err(CUTS_OFF.into()),
        operators::DIVIDE if by_zero == ByZero::Counts => OVER_ANY,
        operators::DIVIDE => OVER,
        _ => return Ok(()),
    };
    name.clone_into(&mut call.func_name);
    Ok(())
}

fn is_status(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == "status")
}

/// Whether what comes of it is a whole number whatever the answer is, as far as the text says. Its operators are replaced
/// already.
fn is_whole(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Literal(value) => matches!(value, LiteralValue::Int(_) | LiteralValue::UInt(_)),
        Expr::Ident(_) => is_status(expression),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            ("size" | "int" | "uint", _) | (operators::DIVIDE, [_, _]) => true,
            (PLUS | MINUS | TIMES, all) | (operators::NEGATE, all) => all.iter().all(is_whole),
            (operators::CONDITIONAL, [_, one, other]) => is_whole(one) && is_whole(other),
            _ => false,
        },
        _ => false,
    }
}

/// Why an operator of this file has no answer, if it is one.
pub(super) fn told(error: &ExecutionError) -> Option<&str> {
    match error {
        ExecutionError::FunctionError { function, message } if function.starts_with('@') => Some(message),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => Some(BY_ZERO),
        _ => None,
    }
}

fn fault(function: &str, message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: function.into(), message: message.into() }
}

fn unfit(function: &str) -> ExecutionError {
    fault(function, "its types do not fit the answer")
}

type Pair<'b, 'v> = (CowVal<'b, 'v>, CowVal<'b, 'v>);
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

#[expect(clippy::cast_precision_loss, reason = "a double has no more than 53 bits")]
fn double(value: &dyn Val) -> Option<f64> {
    let whole = || value.downcast_ref::<CelInt>().map(|it| *it.inner() as f64);
    let unsigned = || value.downcast_ref::<CelUInt>().map(|it| *it.inner() as f64);
    value.downcast_ref::<CelDouble>().map(|it| *it.inner()).or_else(whole).or_else(unsigned)
}

/// Two numbers of different types as doubles; all else as it is.
fn alike<'b, 'v>(function: &str, args: Vec<CowVal<'b, 'v>>) -> Result<Pair<'b, 'v>, ExecutionError> {
    let [one, other] = <[_; 2]>::try_from(args).map_err(|_| unfit(function))?;
    if one.get_type() == other.get_type() {
        return Ok((one, other));
    }
    Ok(match (double(one.as_ref()), double(other.as_ref())) {
        (Some(one), Some(other)) => (CowVal::owned(CelDouble::from(one)), CowVal::owned(CelDouble::from(other))),
        _ => (one, other),
    })
}

fn plus<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = alike(PLUS, args)?;
    Ok(CowVal::Owned(one.as_adder().ok_or_else(|| unfit(PLUS))?.add(other.as_ref())?.into_owned()))
}

fn minus<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = alike(MINUS, args)?;
    Ok(CowVal::Owned(one.as_subtractor().ok_or_else(|| unfit(MINUS))?.sub(other.as_ref())?.into_owned()))
}

fn times<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = alike(TIMES, args)?;
    Ok(CowVal::Owned(one.as_multiplier().ok_or_else(|| unfit(TIMES))?.mul(other.as_ref())?.into_owned()))
}

fn over<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    if args.get(1).and_then(|it| double(it.as_ref())) == Some(0.0) {
        return Err(fault(OVER, BY_ZERO));
    }
    over_any(args)
}

fn over_any<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (one, other) = alike(OVER, args)?;
    match (one.downcast_ref::<CelDouble>(), other.downcast_ref::<CelDouble>()) {
        (Some(one), Some(other)) => Ok(CowVal::owned(CelDouble::from(one.inner() / other.inner()))),
        _ if double(one.as_ref()).is_some() && double(other.as_ref()).is_some() => Err(fault(OVER, CUTS_OFF)),
        _ => Err(unfit(OVER)),
    }
}

/// What a division leaves, of numbers that are whole; JSON does not say which are.
fn rest<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let number = |place: usize| args.get(place).and_then(|it| double(it.as_ref()));
    let (Some(one), Some(other)) = (number(0), number(1)) else { return Err(unfit(REST)) };
    match () {
        () if other == 0.0 => Err(fault(REST, BY_ZERO)),
        () if one.fract() != 0.0 || other.fract() != 0.0 => Err(fault(REST, "% is for whole numbers")),
        () => Ok(CowVal::owned(CelDouble::from(one % other))),
    }
}
