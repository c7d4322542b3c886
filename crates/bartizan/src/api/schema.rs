//! What the arguments and the answer of a handler look like, and whether an input's schema is closed and bounded.

use std::collections::HashSet;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::answers::Answer;
use super::incoming::Media;

/// A Rust type and how to make its schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) type_name: &'static str,
    pub(super) generate: fn(&mut SchemaGenerator) -> Schema,
}

impl Shape {
    fn of<T: JsonSchema>() -> Self {
        Self { type_name: std::any::type_name::<T>(), generate: SchemaGenerator::subschema_for::<T> }
    }
}

/// Whether a body must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
}

/// A body: media type, whether it must be there, and its type.
#[derive(Clone, Debug)]
pub(super) struct BodyShape {
    pub(super) media: Media,
    pub(super) presence: Presence,
    pub(super) shape: Shape,
}

/// Everything a handler's signature says about its input and output.
#[derive(Clone, Debug, Default)]
pub struct Description {
    pub(super) path: Vec<Shape>,
    pub(super) query: Vec<Shape>,
    pub(super) body: Option<BodyShape>,
    pub(super) answer: Option<fn(&mut SchemaGenerator) -> Option<Schema>>,
    pub(super) status: u16,
}

impl Description {
    pub(super) fn path<T: JsonSchema>(&mut self) {
        self.path.push(Shape::of::<T>());
    }

    pub(super) fn query<T: JsonSchema>(&mut self) {
        self.query.push(Shape::of::<T>());
    }

    pub(super) fn body<T: JsonSchema>(&mut self, media: Media, presence: Presence) {
        self.body = Some(BodyShape { media, presence, shape: Shape::of::<T>() });
    }

    pub(super) fn answer<T: Answer>(&mut self) {
        self.answer = Some(T::schema);
        self.status = T::STATUS.as_u16();
    }
}

/// A place in an input's schema that lets in more than is stated, and the rule it breaks.
pub(super) type Gap = (String, &'static str);

/// Every place where `schema` is open or unbounded. `definitions` are what its `$ref`s point to.
pub(super) fn gaps(schema: &Value, definitions: &Map<String, Value>) -> Vec<Gap> {
    let mut walk = Walk { definitions, seen: HashSet::new(), gaps: Vec::new() };
    walk.visit(schema, "");
    walk.gaps
}

struct Walk<'a> {
    definitions: &'a Map<String, Value>,
    /// Named schemas already looked at: types may be recursive.
    seen: HashSet<&'a str>,
    gaps: Vec<Gap>,
}

impl<'a> Walk<'a> {
    fn gap(&mut self, at: &str, rule: &'static str) {
        self.gaps.push((if at.is_empty() { "/".to_owned() } else { at.to_owned() }, rule));
    }

    fn visit(&mut self, schema: &'a Value, at: &str) {
        let Value::Object(schema) = schema else {
            if schema != &Value::Bool(false) {
                self.gap(at, "accepts anything; state what it is");
            }
            return;
        };
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).map(last_segment) {
            let definitions = self.definitions;
            match definitions.get(name) {
                Some(_) if !self.seen.insert(name) => {}
                Some(definition) => self.visit(definition, at),
                None => self.gap(at, "refers to a schema that is not there"),
            }
            return;
        }
        if schema.contains_key("const") || schema.contains_key("enum") {
            return;
        }
        let mut alternatives = 0;
        for list in ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema.get(*word)?.as_array()) {
            alternatives += list.len();
            list.iter().for_each(|inner| self.visit(inner, at));
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ if alternatives > 0 => return,
            _ => return self.gap(at, "accepts anything; state what it is"),
        };
        for kind in types {
            self.visit_type(kind, schema, at);
        }
    }

    fn visit_type(&mut self, kind: &str, schema: &'a Map<String, Value>, at: &str) {
        let has = |word: &str| schema.contains_key(word);
        match kind {
            "string" if !has("maxLength") => self.gap(at, "a string without maxLength"),
            "integer" | "number"
                if !(has("minimum") || has("exclusiveMinimum")) || !(has("maximum") || has("exclusiveMaximum")) =>
            {
                self.gap(at, "a number without both bounds");
            }
            "array" => {
                if !has("maxItems") {
                    self.gap(at, "an array without maxItems");
                }
                let first = schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten();
                for item in first.chain(schema.get("items")) {
                    self.visit(item, &format!("{at}/-"));
                }
                if !has("items") && !has("prefixItems") {
                    self.gap(at, "an array of anything");
                }
            }
            "object" => self.visit_object(schema, at),
            _ => {}
        }
    }

    fn visit_object(&mut self, schema: &'a Map<String, Value>, at: &str) {
        let closed = Some(&Value::Bool(false));
        match schema.get("additionalProperties") {
            extra if extra == closed || schema.get("unevaluatedProperties") == closed => {}
            Some(extra @ Value::Object(_)) => {
                if !schema.contains_key("maxProperties") {
                    self.gap(at, "a map without maxProperties");
                }
                self.visit(extra, &format!("{at}/*"));
            }
            _ => self.gap(at, "open to unknown members; add #[serde(deny_unknown_fields)]"),
        }
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.visit(inner, &format!("{at}/{name}"));
        }
    }
}

fn last_segment(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// One parameter of a query or path.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) schema: Value,
    pub(super) presence: Presence,
}

/// Splits the schema of a flat struct into parameters; `None` when it is not one.
pub(super) fn parameters(schema: &Value) -> Option<Vec<Parameter>> {
    let schema = schema.as_object()?;
    if schema.get("type")? != "object" {
        return None;
    }
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(name, inner)| {
            let presence = if required.contains(&name.as_str()) { Presence::Required } else { Presence::Optional };
            let schema = without_null(inner);
            is_scalar(&schema).then_some(Parameter { name: name.clone(), schema, presence })
        })
        .collect()
}

/// A parameter is there or not; there is no way to write `null` in a query.
fn without_null(schema: &Value) -> Value {
    let null = |inner: &Value| inner == "null" || inner.get("type").is_some_and(|kind| kind == "null");
    let mut schema = schema.clone();
    let Some(map) = schema.as_object_mut() else { return schema };
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    for word in ["type", "anyOf", "oneOf", "enum"] {
        let Some(Value::Array(list)) = map.get_mut(word) else { continue };
        list.retain(|inner| !null(inner) && !inner.is_null());
        if list.len() != 1 || word == "enum" {
            continue;
        }
        let Some(only) = list.pop() else { continue };
        map.remove(word);
        match only {
            // The alternative's own words move up; those beside it (a description) stay.
            Value::Object(inner) => inner.into_iter().for_each(|(key, value)| {
                map.entry(key).or_insert(value);
            }),
            kind => {
                map.insert(word.to_owned(), kind);
            }
        }
    }
    schema
}

/// Whether a schema is about single values.
pub(super) fn is_scalar(schema: &Value) -> bool {
    if schema.get("const").is_some() || schema.get("enum").is_some() {
        return true;
    }
    if let Some(list) = ["anyOf", "oneOf"].iter().find_map(|word| schema.get(*word)?.as_array()) {
        return list.iter().all(is_scalar);
    }
    matches!(schema.get("type").and_then(Value::as_str), Some("string" | "integer" | "number" | "boolean"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(schema: Value) -> Vec<(String, &'static str)> {
        let definitions = json!({
            "Tree": { "type": "object", "additionalProperties": false,
                "properties": { "kids": { "type": "array", "items": { "$ref": "#/components/schemas/Tree" } } } }
        });
        gaps(&schema, definitions.as_object().unwrap())
    }

    #[test]
    fn closed_and_bounded_input_has_no_gap() {
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": {
            "name": { "type": ["string", "null"], "maxLength": 9 },
            "age": { "type": "integer", "minimum": 0, "exclusiveMaximum": 200 },
            "role": { "enum": ["a", "b"] },
            "kind": { "oneOf": [{ "const": "x" }, { "const": "y" }] },
            "yes": { "type": "boolean" },
            "tags": { "type": "array", "maxItems": 3, "items": { "type": "string", "maxLength": 5 } },
            "map": { "type": "object", "maxProperties": 4, "additionalProperties": { "type": "boolean" } }
        }});
        assert_eq!(rules(schema), []);
    }

    #[test]
    fn every_gap_is_named_with_its_place() {
        let schema = json!({ "type": "object", "properties": {
            "any": true,
            "map": { "type": "object", "additionalProperties": { "type": "string" } },
            "name": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
            "number": { "type": "number", "minimum": 0 },
            "tree": { "$ref": "#/components/schemas/Tree" }
        }});
        let places: Vec<String> = rules(schema).into_iter().map(|(at, _)| at).collect();
        assert_eq!(places, ["/", "/any", "/map", "/map/*", "/name", "/number", "/tree/kids"]);
    }

    #[test]
    fn optional_parameters_lose_their_null() {
        let schema = json!({ "type": "object", "required": ["a"], "properties": {
            "a": { "type": "integer" },
            "b": { "type": ["string", "null"], "maxLength": 3, "default": null },
            "c": { "anyOf": [{ "type": "string", "enum": ["x"] }, { "type": "null" }], "description": "see" }
        }});
        let found = parameters(&schema).unwrap();
        assert_eq!(found[1].schema, json!({ "type": "string", "maxLength": 3 }));
        assert_eq!(found[2].schema, json!({ "type": "string", "enum": ["x"], "description": "see" }));
        assert_eq!(found[0].presence, Presence::Required);
        assert!(parameters(&json!({ "type": "object", "properties": { "a": { "type": "array" } } })).is_none());
        assert!(parameters(&json!({ "type": "string" })).is_none());
    }
}
