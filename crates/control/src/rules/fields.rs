//! Reads the fields of a JSON object one by one, collecting every problem instead of stopping at the first.

use serde::Serialize;
use serde_json::{Map, Value};
use store::Limit;

/// One thing wrong with what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldProblem {
    /// The field's name.
    pub(crate) field: String,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

/// The fields of an object that have not been read yet, and what was wrong with the others.
pub(crate) struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<FieldProblem>,
}

impl Fields {
    pub(crate) fn new(object: Map<String, Value>) -> Self {
        Self {
            left: object,
            known: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(crate) fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(FieldProblem {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// Whether something was wrong with `field`.
    pub(crate) fn has_problem(&self, field: &str) -> bool {
        self.problems.iter().any(|problem| problem.field == field)
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, field: &'static str) -> Option<String> {
        let before = self.problems.len();
        let text = self.text_or_none(field);
        if text.is_none() && self.problems.len() == before {
            self.problem(field, "is missing: send a string");
        }
        text
    }

    /// A text that may be absent or null.
    pub(crate) fn text_or_none(&mut self, field: &'static str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            _ => self.wrong(field, "must be a string"),
        }
    }

    /// A flag; absent is false.
    pub(crate) fn flag(&mut self, field: &'static str) -> bool {
        match self.take(field) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => self
                .wrong(field, "must be true or false")
                .unwrap_or_default(),
        }
    }

    /// A whole number that may be absent or null.
    pub(crate) fn number_or_none(&mut self, field: &'static str) -> Option<u64> {
        match self.take(field)?.as_u64() {
            Some(number) => Some(number),
            None => self.wrong(field, "must be a whole number, not negative"),
        }
    }

    /// A limit: a whole number, or null for the default; absent is neither.
    pub(crate) fn limit_or_none(&mut self, field: &'static str) -> Option<Limit> {
        if self.left.get(field).is_some_and(Value::is_null) {
            self.take(field);
            return Some(Limit::Default);
        }
        self.number_or_none(field).map(Limit::Own)
    }

    /// An object that may be absent or null; `read` reads its fields.
    pub(crate) fn object_or_none<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Value::Object(object) = self.take(field)? else {
            return self.wrong(field, "must be an object");
        };
        let mut inner = Self::new(object);
        let value = read(&mut inner);
        for problem in inner.finish() {
            self.problem(&format!("{field}.{}", problem.field), problem.message);
        }
        Some(value)
    }

    /// A list of texts that may be absent or null.
    pub(crate) fn texts_or_none(&mut self, field: &'static str) -> Option<Vec<String>> {
        let Value::Array(list) = self.take(field)? else {
            return self.wrong(field, "must be an array of strings");
        };
        let texts = list.into_iter().map(|item| match item {
            Value::String(text) => Some(text),
            _ => None,
        });
        match texts.collect() {
            Some(texts) => Some(texts),
            None => self.wrong(field, "must be an array of strings"),
        }
    }

    /// Everything that was wrong, fields that nobody asked for included.
    pub(crate) fn finish(mut self) -> Vec<FieldProblem> {
        let unknown: Vec<String> = self.left.keys().cloned().collect();
        let known = self.known.join(", ");
        for field in unknown {
            self.problem(&field, format!("is not a known field: there are {known}"));
        }
        self.problems
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn wrong<T>(&mut self, field: &str, message: &str) -> Option<T> {
        self.problem(field, message);
        None
    }
}
