//! A walk over every route, with all that each can answer, for tests of what all answers have in common.

use std::collections::BTreeMap;

use control::{Access, OperatorToken, Route, routes};
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use store::{KeyUse, OperatorScopes, Seen};
use time::macros::datetime;

use crate::harness::{Answer, World, bearer, key_id, new_tenant};

const TENANTS: &str = "/api/v1/tenants";
const TENANT: &str = "/api/v1/tenants/{id}";
const KEYS: &str = "/api/v1/tenants/{id}/keys";
const ROTATE: &str = "/api/v1/tenants/{id}/keys/rotate";
const KEY: &str = "/api/v1/keys/{key_id}";
const REVOKE: &str = "/api/v1/keys/{key_id}/revoke";
const OPERATORS: &str = "/api/v1/operators";
const REVOKE_OPERATOR: &str = "/api/v1/operators/{id}/revoke";
const AUDIT: &str = "/api/v1/audit";

/// A well-formed id that nothing has: no tenant, no key and no operator.
const NOBODY: &str = "nobody000000";

/// What was asked and answered.
pub(crate) struct Exchange {
    pub(crate) method: Method,
    /// The path as the table of routes has it.
    pub(crate) path: &'static str,
    /// The body, where it was JSON.
    pub(crate) sent: Option<Value>,
    pub(crate) answer: Answer,
}

/// Goes everywhere. Afterwards the store of `world` is closed.
pub(crate) async fn walk(world: &World) -> Vec<Exchange> {
    let mut walk = Walk {
        world,
        exchanges: Vec::new(),
    };
    walk.life().await;
    walk.refusals().await;
    for route in routes() {
        walk.wrong_callers(&route).await;
        walk.wrong_requests(&route).await;
    }
    world.store.close().await;
    for route in routes() {
        walk.go(&route.method, route.path, NOBODY, Some(json!({})))
            .await;
    }
    walk.exchanges
}

struct Walk<'a> {
    world: &'a World,
    exchanges: Vec<Exchange>,
}

fn has_body(route: &Route) -> bool {
    let wants = [Method::POST, Method::PATCH].contains(&route.method);
    wants && !route.path.ends_with("/revoke")
}

impl Walk<'_> {
    /// As an admin; `id` stands for the parameter in the path.
    async fn go(
        &mut self,
        method: &Method,
        path: &'static str,
        id: &str,
        sent: Option<Value>,
    ) -> Value {
        let admin = self.world.admin.clone();
        self.go_as(&admin, method, path, id, sent).await
    }

    async fn go_as(
        &mut self,
        token: &OperatorToken,
        method: &Method,
        path: &'static str,
        id: &str,
        sent: Option<Value>,
    ) -> Value {
        let real = path.replace("{id}", id).replace("{key_id}", id);
        let answer = self.world.ask(token, method, &real, sent.clone()).await;
        self.keep(method, path, sent, answer)
    }

    fn keep(
        &mut self,
        method: &Method,
        path: &'static str,
        sent: Option<Value>,
        answer: Answer,
    ) -> Value {
        let object = serde_json::from_str(&answer.text).unwrap_or_default();
        self.exchanges.push(Exchange {
            method: method.clone(),
            path,
            sent,
            answer,
        });
        object
    }

    /// What goes well.
    async fn life(&mut self) {
        let (get, post, patch) = (&Method::GET, &Method::POST, &Method::PATCH);
        for path in ["/livez", "/readyz", "/api/openapi.json"] {
            self.go(get, path, "", None).await;
        }
        let made = self.go(post, TENANTS, "", Some(new_tenant("acme"))).await;
        let first = key_id(&made["key"]);
        let mut unusual = new_tenant("Team_(1)!*'");
        unusual["allow_any_id"] = true.into();
        self.go(post, TENANTS, "", Some(unusual)).await;
        let all = json!({
            "name": "Acme & Söhne", "email": "neu@acme.example", "status": "suspended",
            "limits": {"body_max_bytes": 0},
        });
        self.go(patch, TENANT, "acme", Some(all)).await;
        let resume = json!({"status": "active", "limits": {"body_max_bytes": null}});
        self.go(patch, TENANT, "acme", Some(resume)).await;
        let import = json!({"key_id": "0123456789ab", "sha256": "5E".repeat(32)});
        for wish in [
            json!({}),
            json!({"name": "a", "scopes": ["logs:read"], "expires_in_seconds": 3600}),
            json!({"name": null, "scopes": null, "expires_at": "2090-01-01T00:00:00Z"}),
            import.clone(),
            import,
        ] {
            self.go(post, KEYS, "acme", Some(wish)).await;
        }
        let rotation = json!({"key_id": first, "grace_seconds": 60, "name": "b"});
        let second = self.go(post, ROTATE, "acme", Some(rotation)).await;
        let now = json!({"key_id": second["key_id"], "grace_seconds": 0, "expires_in_seconds": 60});
        self.go(post, ROTATE, "acme", Some(now)).await;
        let at = datetime!(2026-01-02 03:04:05.678 UTC);
        let seen = |value: &str| Seen {
            value: value.to_owned(),
            requests: 3,
            first_at: at,
            last_at: at,
        };
        let uses = KeyUse {
            key_id: first.parse().unwrap(),
            last_used_at: at,
            user_agents: vec![seen("OTel-OTLP-Exporter-Go/1.2"), seen("")],
            addresses: vec![seen("2001:db8::1")],
        };
        self.world.store.key_uses_write(&[uses]).await.unwrap();
        self.go(get, KEY, &first, None).await;
        self.go(post, REVOKE, &first, None).await;
        let scopes = OperatorScopes::ADMIN;
        let hour = Some(time::Duration::HOUR);
        let operator = self.world.operator("otto", scopes, hour).await;
        self.go(post, REVOKE_OPERATOR, operator.id(), None).await;
        self.go(get, TENANT, "acme", None).await;
        self.go(get, KEYS, "acme", None).await;
        for list in [TENANTS, OPERATORS, AUDIT] {
            self.go(get, list, "", None).await;
        }
        self.go(&Method::DELETE, TENANT, "Team_(1)!*'", None).await;
    }

    /// What each route refuses for reasons of its own.
    async fn refusals(&mut self) {
        let (post, patch) = (&Method::POST, &Method::PATCH);
        self.go(post, TENANTS, "", Some(new_tenant("acme"))).await;
        self.go(patch, TENANT, "acme", Some(json!({}))).await;
        let rename = json!({"name": "x"});
        self.go(patch, TENANT, "Team_(1)!*'", Some(rename)).await;
        for path in [KEYS, ROTATE] {
            self.go(post, path, "Team_(1)!*'", Some(json!({}))).await;
        }
        self.go(post, ROTATE, "acme", Some(json!({}))).await;
        let taken = json!({"key_id": "0123456789ab", "sha256": "00".repeat(32)});
        self.go(post, KEYS, "acme", Some(taken)).await;
        for route in routes().iter().filter(|route| route.path.contains('{')) {
            let body = has_body(route).then(|| json!({"name": "x"}));
            self.go(&route.method, route.path, NOBODY, body).await;
        }
    }

    async fn wrong_callers(&mut self, route: &Route) {
        if route.access == Access::Anybody {
            return;
        }
        let real = route.path.replace("{id}", "acme");
        let answer = self.world.send(&route.method, &real, &[], "").await;
        self.keep(&route.method, route.path, None, answer);
        let scopes = OperatorScopes::default();
        let powerless = self.world.operator("nobody", scopes, None).await;
        self.go_as(&powerless, &route.method, route.path, "acme", None)
            .await;
    }

    async fn wrong_requests(&mut self, route: &Route) {
        if route.access == Access::Anybody {
            return;
        }
        let authorization = bearer(&self.world.admin);
        let authorization = (AUTHORIZATION.as_str(), authorization.as_str());
        let json = (CONTENT_TYPE.as_str(), "application/json");
        let real = route.path.replace("{id}", "acme");
        if has_body(route) {
            let text = (CONTENT_TYPE.as_str(), "text/plain");
            let large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
            for (media_type, body) in [
                (json, "{".to_owned()),
                (json, large),
                (text, "{}".to_owned()),
                (json, "{\"colour\": 1}".to_owned()),
            ] {
                let headers = [authorization, media_type];
                let answer = self.world.send(&route.method, &real, &headers, body).await;
                self.keep(&route.method, route.path, None, answer);
            }
        } else if is_list(route) {
            for query in ["?page=2", "?limit=0", "?limit=1"] {
                let real = format!("{real}{query}");
                let headers = [authorization];
                let answer = self.world.send(&route.method, &real, &headers, "").await;
                self.keep(&route.method, route.path, None, answer);
            }
        }
    }
}

/// Whether a route answers with pages.
pub(crate) fn is_list(route: &Route) -> bool {
    route.method == Method::GET && [TENANTS, KEYS, OPERATORS, AUDIT].contains(&route.path)
}

/// The statuses that were answered, by method and path.
pub(crate) fn statuses(exchanges: &[Exchange]) -> BTreeMap<(String, &'static str), Vec<u16>> {
    let mut seen: BTreeMap<_, Vec<u16>> = BTreeMap::new();
    for exchange in exchanges {
        let route = (exchange.method.to_string(), exchange.path);
        let statuses = seen.entry(route).or_default();
        statuses.push(exchange.answer.status.as_u16());
        statuses.sort_unstable();
        statuses.dedup();
    }
    seen
}
