//! The API's description, held against what is answered.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

/// One operation: its method in capitals, and the path with `{names}`.
pub(crate) type Operation = (String, String);

pub(crate) struct Document {
    pub(crate) json: Value,
    /// The validators of all answers with a schema.
    schemas: BTreeMap<(Operation, u16), jsonschema::Validator>,
}

impl Document {
    pub(crate) fn new(json: Value) -> Self {
        let mut this = Self { json, schemas: BTreeMap::new() };
        for operation in this.operations() {
            for (status, response) in this.described(&operation) {
                let schema = &response["content"]["application/json"]["schema"];
                if schema.is_null() {
                    continue;
                }
                // References lead into the description, so it comes along.
                let whole = json!({"allOf": [schema], "components": this.json["components"]});
                let validator = jsonschema::draft7::new(&whole).unwrap();
                this.schemas.insert((operation.clone(), status), validator);
            }
        }
        this
    }

    /// All operations, in the order of their paths.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let paths = self.json["paths"].as_object().unwrap();
        let mut all: Vec<Operation> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = ["get", "put", "post", "delete", "patch"];
                let here = methods.into_iter().filter(|method| item.get(method).is_some());
                here.map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        all.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        all
    }

    pub(crate) fn operation(&self, (method, path): &Operation) -> &Value {
        &self.json["paths"][path][method.to_lowercase()]
    }

    /// The described answers of an operation by their status.
    pub(crate) fn described(&self, operation: &Operation) -> BTreeMap<u16, Value> {
        let responses = self.operation(operation)["responses"].as_object().unwrap();
        responses.iter().map(|(status, it)| (status.parse().unwrap(), it.clone())).collect()
    }

    /// The path with `{names}` of a path that was asked for. Where several fit, the one
    /// with most words of its own.
    pub(crate) fn template(&self, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let names: Vec<&str> = template.split('/').collect();
            names.len() == parts.len()
                && names
                    .iter()
                    .zip(&parts)
                    .all(|(name, part)| name.starts_with('{') || name == part)
        };
        let all = self.json["paths"].as_object().unwrap().keys();
        all.filter(fits).min_by_key(|template| template.matches('{').count()).cloned()
    }

    /// Whether an answer is one that is described.
    pub(crate) fn check(&self, method: &Method, path: &str, answer: &Answer) -> Result<(), String> {
        if answer.status >= 400 {
            let body: Value =
                serde_json::from_slice(&answer.bytes).map_err(|why| format!("no JSON: {why}"))?;
            if body["success"] != false
                || !body["error"]["code"].is_string()
                || !body["error"]["message"].is_string()
            {
                return Err("it has not the envelope".into());
            }
        }
        let Some(template) = self.template(path) else {
            return if answer.status == 404 { Ok(()) } else { Err("no such path".into()) };
        };
        let operation = (method.to_string(), template);
        if self.operation(&operation).is_null() {
            return if answer.status == 405 { Ok(()) } else { Err("no such method".into()) };
        }
        let described = self.described(&operation);
        let response = described.get(&answer.status).ok_or("the status is not described")?;
        let kinds = response["content"].as_object();
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        if !kinds.is_none_or(|kinds| kinds.contains_key(kind)) {
            return Err(format!("the kind {kind} is not described"));
        }
        if kind == "application/json"
            && let Some(schema) = self.schemas.get(&(operation, answer.status))
        {
            let body: Value =
                serde_json::from_slice(&answer.bytes).map_err(|why| format!("no JSON: {why}"))?;
            schema.validate(&body).map_err(|why| format!("{} at {}", why, why.instance_path))?;
        }
        Ok(())
    }
}

/// The routes that `protocol.md` names: what stands in backquotes after a method.
fn told(text: &str) -> BTreeSet<Operation> {
    let part = text.split("## JSON-RPC with the editors").next().unwrap();
    let quoted = part.split('`').skip(1).step_by(2);
    let route = |quoted: &str| {
        let (method, path) = quoted.split_once(' ')?;
        let path = path.split(['?', '[', ' ']).next()?;
        let path = path.replace('…', super::VOLUMES).replacen("{id}", "{volume}", 1);
        let path = if path.starts_with("/api-keys") { path.replace("volume", "id") } else { path };
        let known = ["GET", "PUT", "POST", "PATCH", "DELETE"].contains(&method);
        (known && path.starts_with('/')).then(|| (method.to_owned(), path))
    };
    quoted.filter_map(route).collect()
}

#[tokio::test]
async fn the_protocol_names_every_route_and_no_other() {
    let rig = Rig::start().await;
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol.md");
    let told = told(&std::fs::read_to_string(text).unwrap());
    let served: BTreeSet<Operation> = rig.document().await.operations().into_iter().collect();
    assert_eq!(told, served);
}
