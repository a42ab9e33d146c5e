//! Where two configurations differ.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The leaves at which two JSON values differ, as `key.of.leaf is A there, B here`.
///
/// # Examples
/// ```
/// use serde_json::json;
/// let (there, here) = (json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": 1, "c": 3 } }));
/// assert_eq!(fwd_continual::differences(&there, &here), ["a.c is 2 there, 3 here"]);
/// ```
pub fn differences(there: &Value, here: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk("", there, here, &mut out);
    out
}

fn walk(key: &str, there: &Value, here: &Value, out: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let get = |map| Map::get(map, name).unwrap_or(&Value::Null);
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                walk(&key, get(a), get(b), out);
            }
        }
        _ if there != here => out.push(format!("{key} is {there} there, {here} here")),
        _ => {}
    }
}
