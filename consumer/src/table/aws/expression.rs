//! Conditions and updates as DynamoDB's expressions, with numbered placeholders for every name and value.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::value::to_aws;
use crate::table::{Condition, Update};

/// Expression text with its numbered names and values.
#[derive(Default)]
pub(super) struct Expression {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#a{}", self.names.len());
        self.names.insert(placeholder.clone(), attribute.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn compare(&mut self, attribute: &str, operator: &str, value: AttributeValue) -> String {
        format!("{} {operator} {}", self.name(attribute), self.value(value))
    }

    pub(super) fn condition(&mut self, condition: &Condition) -> Option<String> {
        let text = match condition {
            Condition::None => return None,
            Condition::All(parts) => self.join(parts, " AND ")?,
            Condition::Any(parts) => self.join(parts, " OR ")?,
            Condition::Equals(name, value) => self.compare(name, "=", to_aws(value)),
            // An absent attribute differs from everything there.
            Condition::Differs(name, value) => {
                let (there, differs) = (self.name(name), self.compare(name, "<>", to_aws(value)));
                format!("(attribute_exists({there}) AND {differs})")
            }
            Condition::Below(name, bound) => self.compare(name, "<", AttributeValue::N(bound.to_string())),
            Condition::AtMost(name, bound) => self.compare(name, "<=", AttributeValue::N(bound.to_string())),
            Condition::Exists(name) => format!("attribute_exists({})", self.name(name)),
            Condition::Absent(name) => format!("attribute_not_exists({})", self.name(name)),
        };
        Some(text)
    }

    fn join(&mut self, parts: &[Condition], by: &str) -> Option<String> {
        let texts: Vec<String> = parts.iter().filter_map(|part| self.condition(part)).collect();
        // DynamoDB refuses redundant parentheses.
        match texts.len() {
            0 => None,
            1 => texts.into_iter().next(),
            _ => Some(format!("({})", texts.join(by))),
        }
    }

    pub(super) fn update(&mut self, update: &Update) -> String {
        let mut text = String::new();
        let sets: Vec<String> = update.set.iter().map(|(n, v)| self.compare(n, "=", to_aws(v))).collect();
        if !sets.is_empty() {
            text.push_str(&format!("SET {} ", sets.join(", ")));
        }
        let removes: Vec<String> = update.remove.iter().map(|name| self.name(name)).collect();
        if !removes.is_empty() {
            text.push_str(&format!("REMOVE {}", removes.join(", ")));
        }
        text
    }

    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        if self.names.is_empty() { None } else { Some(self.names.clone()) }
    }

    pub(super) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        if self.values.is_empty() { None } else { Some(self.values.clone()) }
    }
}
