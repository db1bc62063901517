//! A proxy before moto that counts calls, and answers some of them as AWS may.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// An answer without asking moto.
    Answer(u16, String),
    /// Moto does it, and the answer is lost on the way.
    Lost,
    /// Something is added to the form that moto gets.
    Add(&'static str),
}

/// A fault for calls of an action whose body contains a text.
#[derive(Clone, Debug)]
struct Rule {
    action: &'static str,
    text: String,
    left: usize,
    fault: Fault,
}

/// Calls so far, by action, and what is to go wrong.
#[derive(Default)]
pub(crate) struct Proxy {
    moto: String,
    calls: Mutex<Vec<(String, String)>>,
    rules: Mutex<Vec<Rule>>,
    client: reqwest::Client,
}

impl Proxy {
    /// Listens for as long as the runtime of the caller lives; the address is a URL.
    pub(crate) async fn start(moto: &str) -> (Arc<Self>, String) {
        let proxy = Arc::new(Self { moto: moto.to_owned(), ..Self::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let router = axum::Router::new().fallback(serve).with_state(Arc::clone(&proxy));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (proxy, address)
    }

    /// The next `times` calls of an action that contain `text` go wrong.
    pub(crate) fn fail(&self, action: &'static str, text: &str, times: usize, fault: Fault) {
        let rule = Rule { action, text: text.to_owned(), left: times, fault };
        self.rules.lock().expect("not poisoned").push(rule);
    }

    /// The same, before what was said so far.
    pub(crate) fn fail_first(&self, action: &'static str, text: &str, times: usize, fault: Fault) {
        let rule = Rule { action, text: text.to_owned(), left: times, fault };
        self.rules.lock().expect("not poisoned").insert(0, rule);
    }

    /// An error as EC2 Auto Scaling words it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Fault {
        let xml = format!(
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error>\
             <Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>1</RequestId></ErrorResponse>"
        );
        Fault::Answer(status, xml)
    }

    /// An error as EC2 words it.
    pub(crate) fn ec2_error(status: u16, code: &str, message: &str) -> Fault {
        let xml = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>\
             </Errors><RequestID>1</RequestID></Response>"
        );
        Fault::Answer(status, xml)
    }

    /// How often an action was called with this text.
    pub(crate) fn count(&self, action: &str, text: &str) -> usize {
        let calls = self.calls.lock().expect("not poisoned");
        calls.iter().filter(|(name, body)| name == action && body.contains(text)).count()
    }

    /// Every action that was called.
    pub(crate) fn actions(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("not poisoned");
        calls.iter().map(|(action, _)| action.clone()).collect()
    }

    fn fault(&self, action: &str, body: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().expect("not poisoned");
        let hit =
            |rule: &&mut Rule| rule.left > 0 && rule.action == action && body.contains(&rule.text);
        let rule = rules.iter_mut().find(hit)?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

/// The operation's name: a field of the form, or a header in AWS's newer protocols.
fn action(headers: &HeaderMap, body: &str) -> String {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let of_form = || body.split('&').find_map(|field| field.strip_prefix("Action="));
    let name = target.and_then(|target| target.rsplit('.').next()).or_else(of_form);
    name.unwrap_or_default().to_owned()
}

async fn serve(
    State(proxy): State<Arc<Proxy>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response<Body> {
    let mut body = String::from_utf8_lossy(&bytes).into_owned();
    let action = action(&headers, &body);
    // Each field of a form ends alike.
    let fields = format!("{body}&");
    let fault = proxy.fault(&action, &fields);
    proxy.calls.lock().expect("not poisoned").push((action, fields));
    if let Some(Fault::Answer(status, xml)) = fault {
        let status = StatusCode::from_u16(status).expect("a status");
        return Response::builder()
            .status(status)
            .header("content-type", "text/xml")
            .body(xml.into())
            .expect("a response");
    }
    if let Some(Fault::Add(field)) = fault {
        body = format!("{body}&{field}");
    }
    let mut headers = headers;
    headers.remove("content-length");
    let sent = proxy
        .client
        .request(method, format!("{}{uri}", proxy.moto))
        .headers(headers)
        .body(body)
        .send()
        .await
        .expect("moto answers");
    if let Some(Fault::Lost) = fault {
        let lost = std::io::Error::other("lost");
        let stream = tokio_stream::iter([Ok(Bytes::from_static(b"<")), Err(lost)]);
        return Response::new(Body::from_stream(stream));
    }
    let mut response = Response::builder().status(sent.status());
    for (name, value) in sent.headers() {
        let framing =
            name == "transfer-encoding" || name == "content-length" || name == "connection";
        if !framing {
            response = response.header(name, value);
        }
    }
    response.body(sent.bytes().await.expect("a body").into()).expect("a response")
}
