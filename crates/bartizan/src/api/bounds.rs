//! What the document promises is enforced: the bounds of an input's own schema, checked on every request.
//!
//! Semantic types enforce their rules while they parse. A plain `String` with `#[schemars(length(max = 100))]` would only
//! claim to; here the claim is made true. Lengths are in characters, as JSON Schema counts them. `pattern` and `format`
//! are left to semantic types: they need an engine of regular expressions.

use bartizan_core::error::{Code, FieldError, Refusal};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Number, Value};

use super::schema::{Description, Shape};
use super::text::{Pairs, Place};

/// Most breaches told at once.
const MAX_TOLD: usize = 32;

/// The schemas of one route's input.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    path: Option<Value>,
    query: Option<Value>,
    body: Option<Value>,
    definitions: Map<String, Value>,
}

impl Bounds {
    /// Taken from the same types as the document.
    pub(super) fn of(description: &Description) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut generator = settings.for_deserialize().into_generator();
        let mut schema = |shape: Option<&Shape>| shape.map(|shape| (shape.generate)(&mut generator).to_value());
        let path = schema(description.path.first());
        let query = schema(description.query.first());
        let body = schema(description.body.as_ref().map(|body| &body.shape));
        Self { path, query, body, definitions: generator.definitions().clone() }
    }

    /// Checks a JSON body that has been parsed already; 422 with every breach.
    pub(super) fn check_body(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(schema) = &self.body else { return Ok(()) };
        let value: Value = serde_json::from_slice(bytes).map_err(|_| Refusal::new(Code::JsonInvalid))?;
        let mut breaches = Vec::new();
        self.visit(schema, &value, "", &mut breaches);
        refuse(breaches)
    }

    /// Checks names and values that have been parsed already; 422 with every breach.
    pub(super) fn check_pairs(&self, place: Place, pairs: &Pairs) -> Result<(), Refusal> {
        let schema = match place {
            Place::Path => &self.path,
            Place::Query => &self.query,
            Place::Form => &self.body,
        };
        let Some(schema) = schema else { return Ok(()) };
        let mut breaches = Vec::new();
        for (name, text) in pairs {
            // A parameter that is a single value has no struct around it.
            let inner = schema.get("properties").map_or(Some(schema), |properties| properties.get(name));
            let Some(inner) = inner else { continue };
            let mut told = Vec::new();
            let readings = readings(text);
            let fits = readings.iter().any(|value| {
                told.clear();
                self.visit(inner, value, "", &mut told);
                told.is_empty()
            });
            if !fits {
                let error = told.into_iter().next_back();
                breaches.extend(error.map(|error| FieldError { pointer: place.pointer(name), ..error }));
            }
        }
        refuse(breaches)
    }

    fn visit(&self, schema: &Value, value: &Value, at: &str, told: &mut Vec<FieldError>) {
        if told.len() >= MAX_TOLD {
            return;
        }
        let Value::Object(schema) = schema else {
            if schema == &Value::Bool(false) {
                told.push(FieldError::new(at, "field.unknown", "There is no such name here."));
            }
            return;
        };
        let named = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        if let Some(definition) = named.and_then(|name| self.definitions.get(name)) {
            self.visit(definition, value, at, told);
        }
        if let Some(rule) = breach(schema, value) {
            told.push(FieldError::new(at, rule.0, rule.1));
            return;
        }
        for inner in list(schema, "allOf") {
            self.visit(inner, value, at, told);
        }
        for word in ["anyOf", "oneOf"] {
            self.visit_alternatives(list(schema, word), value, at, told);
        }
        match value {
            Value::Object(members) => {
                let properties = schema.get("properties");
                for (name, member) in members {
                    let inner = properties.and_then(|p| p.get(name)).or(schema.get("additionalProperties"));
                    if let Some(inner) = inner {
                        let name = name.replace('~', "~0").replace('/', "~1");
                        self.visit(inner, member, &format!("{at}/{name}"), told);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(inner) = schema.get("items") {
                        self.visit(inner, item, &format!("{at}/{index}"), told);
                    }
                }
            }
            _ => {}
        }
    }

    /// One alternative must fit; otherwise what the most nearly fitting one says is told.
    fn visit_alternatives(&self, alternatives: &[Value], value: &Value, at: &str, told: &mut Vec<FieldError>) {
        let mut nearest: Option<Vec<FieldError>> = None;
        for inner in alternatives {
            let mut breaches = Vec::new();
            self.visit(inner, value, at, &mut breaches);
            if breaches.is_empty() {
                return;
            }
            let wrong_kind = |breaches: &[FieldError]| breaches.iter().any(|error| error.code == WRONG_KIND.0);
            if nearest.as_ref().is_none_or(|near| wrong_kind(near) && !wrong_kind(&breaches)) {
                nearest = Some(breaches);
            }
        }
        told.extend(nearest.unwrap_or_default());
    }
}

type Rule = (&'static str, &'static str);

const WRONG_KIND: Rule = ("value.invalid", "Not one of the values that are read here.");

/// The first rule of `schema` itself that `value` breaks.
fn breach(schema: &Map<String, Value>, value: &Value) -> Option<Rule> {
    let count = |word: &str| schema.get(word).and_then(Value::as_u64);
    let size = |length: usize, least: &str, most: &str| {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        (count(least).is_some_and(|least| length < least), count(most).is_some_and(|most| length > most))
    };
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => is_kind(value, kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(|kind| is_kind(value, kind)),
        _ => true,
    };
    let listed = schema.get("enum").and_then(Value::as_array).is_none_or(|values| values.contains(value));
    let constant = schema.get("const").is_none_or(|only| only == value);
    if !(kind && listed && constant) {
        return Some(WRONG_KIND);
    }
    let (low, high, short, long) = match value {
        Value::String(text) => {
            let (short, long) = size(text.chars().count(), "minLength", "maxLength");
            (short, long, ("string.too_short", "Too short."), ("string.too_long", "Too long."))
        }
        Value::Array(items) => {
            let (few, many) = size(items.len(), "minItems", "maxItems");
            (few, many, ("list.too_short", "Too few items."), ("list.too_long", "Too many items."))
        }
        Value::Object(members) => {
            let (few, many) = size(members.len(), "minProperties", "maxProperties");
            (few, many, ("map.too_short", "Too few members."), ("map.too_long", "Too many members."))
        }
        Value::Number(number) => {
            let (low, high) = out_of_range(schema, number);
            (low, high, ("number.out_of_range", "Too small."), ("number.out_of_range", "Too large."))
        }
        Value::Null | Value::Bool(_) => return None,
    };
    if low { Some(short) } else { high.then_some(long) }
}

fn out_of_range(schema: &Map<String, Value>, number: &Number) -> (bool, bool) {
    use std::cmp::Ordering::{Greater, Less};
    let against = |word: &str| schema.get(word).and_then(Value::as_number).and_then(|bound| compare(number, bound));
    let low =
        against("minimum") == Some(Less) || matches!(against("exclusiveMinimum"), Some(order) if order != Greater);
    let high =
        against("maximum") == Some(Greater) || matches!(against("exclusiveMaximum"), Some(order) if order != Less);
    (low, high)
}

/// Exactly where both are integers; a 64-bit id does not survive a detour over `f64`.
fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn is_kind(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => kind == "number" || (kind == "integer" && number.as_i128().is_some()),
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

/// What a text in a query can stand for: itself, or a number or truth value.
fn readings(text: &str) -> Vec<Value> {
    let mut readings = vec![Value::String(text.to_owned())];
    if let Ok(value @ (Value::Number(_) | Value::Bool(_))) = serde_json::from_str(text) {
        readings.push(value);
    }
    readings
}

fn list<'a>(schema: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    schema.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn refuse(breaches: Vec<FieldError>) -> Result<(), Refusal> {
    if breaches.is_empty() {
        return Ok(());
    }
    let mut refusal = Refusal::new(Code::InputInvalid);
    refusal.errors = breaches;
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: Value, value: Value) -> Vec<(String, String)> {
        let definitions = json!({ "Tree": { "type": "object", "properties": {
            "name": { "type": "string", "maxLength": 2 },
            "kids": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/Tree" } }
        } } });
        let bounds =
            Bounds { body: Some(schema), definitions: definitions.as_object().unwrap().clone(), ..Bounds::default() };
        let refused = bounds.check_body(value.to_string().as_bytes());
        let errors = refused.err().map(|refusal| refusal.errors).unwrap_or_default();
        errors.into_iter().map(|error| (error.pointer, error.code.into_owned())).collect()
    }

    #[test]
    fn every_breach_is_told_with_its_pointer() {
        let tree = json!({ "$ref": "#/$defs/Tree" });
        let value = json!({ "name": "abc", "kids": [{ "name": "ab" }, { "kids": [{}, {}, {}] }] });
        assert_eq!(
            told(tree, value),
            [
                ("/kids/1/kids".to_owned(), "list.too_long".to_owned()),
                ("/name".to_owned(), "string.too_long".to_owned()),
            ]
        );
        let closed = json!({ "properties": {}, "additionalProperties": false });
        assert_eq!(told(closed, json!({ "a/b": 1 })), [("/a~1b".to_owned(), "field.unknown".to_owned())]);
    }

    #[test]
    fn one_alternative_is_enough_and_the_nearest_one_speaks() {
        let schema = json!({ "anyOf": [{ "type": "null" }, { "type": "string", "minLength": 2 }] });
        assert_eq!(told(schema.clone(), json!(null)), []);
        assert_eq!(told(schema.clone(), json!("éé")), []);
        assert_eq!(told(schema.clone(), json!("é")), [(String::new(), "string.too_short".to_owned())]);
        assert_eq!(told(schema, json!(7)), [(String::new(), "value.invalid".to_owned())]);
    }

    #[test]
    fn integers_are_compared_exactly() {
        let schema = json!({ "type": "integer", "minimum": 0, "exclusiveMaximum": u64::MAX });
        assert_eq!(told(schema.clone(), json!(u64::MAX - 1)), []);
        assert_eq!(told(schema.clone(), json!(u64::MAX)).len(), 1);
        assert_eq!(told(schema.clone(), json!(-1)).len(), 1);
        assert_eq!(told(schema, json!(1.5)).len(), 1);
    }
}
