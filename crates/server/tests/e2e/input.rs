//! What is sent: refused when it is not what it claims to be, and never a 500.

use bartizan_testkit::{passphrase, raw};
use http::Method;
use serde_json::json;

use crate::server;

const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn bytes_that_are_not_json_are_refused() {
    let server = server().await;
    let client = server.client();
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep_member = format!("{{\"tenant\":{deep}}}");
    let many = format!("{{\"tenant\":[{}1]}}", "1,".repeat(20_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("blank", b"   ".to_vec()),
        ("a word", b"tenant".to_vec()),
        ("not closed", br#"{"tenant":"a""#.to_vec()),
        ("closed twice", br#"{"tenant":"a"}}"#.to_vec()),
        ("bytes after", br#"{"tenant":"a"} x"#.to_vec()),
        ("two values", br#"{"tenant":"a"}{"tenant":"a"}"#.to_vec()),
        ("byte-order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("NUL", b"{\"tenant\":\"a\0\"}".to_vec()),
        ("NUL after", b"{}\0".to_vec()),
        ("invalid UTF-8", b"{\"tenant\":\"\xff\"}".to_vec()),
        ("overlong UTF-8", b"{\"tenant\":\"\xc0\xaf\"}".to_vec()),
        ("surrogate in UTF-8", b"{\"tenant\":\"\xed\xa0\x80\"}".to_vec()),
        ("lone surrogate", br#"{"tenant":"\ud800"}"#.to_vec()),
        ("swapped surrogates", br#"{"tenant":"\udc00\ud800"}"#.to_vec()),
        ("NaN", br#"{"tenant":NaN}"#.to_vec()),
        ("Infinity", br#"{"tenant":Infinity}"#.to_vec()),
        ("1e999", br#"{"tenant":1e999}"#.to_vec()),
        ("leading zero", br#"{"tenant":01}"#.to_vec()),
        ("plus", br#"{"tenant":+1}"#.to_vec()),
        ("no integer part", br#"{"tenant":.5}"#.to_vec()),
        ("no fraction", br#"{"tenant":1.}"#.to_vec()),
        ("trailing comma", br#"{"tenant":"a",}"#.to_vec()),
        ("comment", br#"{/* x */"tenant":"a"}"#.to_vec()),
        ("line comment", b"{\"tenant\":\"a\"}//x".to_vec()),
        ("single quotes", b"{'tenant':'a'}".to_vec()),
        ("bare name", br#"{tenant:"a"}"#.to_vec()),
        ("control character", b"{\"tenant\":\"a\nb\"}".to_vec()),
        ("bad escape", br#"{"tenant":"\x41"}"#.to_vec()),
        ("short escape", br#"{"tenant":"\u00"}"#.to_vec()),
        ("duplicate member", br#"{"tenant":"a","tenant":"b"}"#.to_vec()),
        ("duplicate by escape", br#"{"tenant":"a","\u0074enant":"b"}"#.to_vec()),
        ("duplicate inside", br#"{"tenant":{"a":1,"a":2}}"#.to_vec()),
        ("too deep", deep.into_bytes()),
        ("too deep inside", deep_member.into_bytes()),
        ("too many nodes", many.into_bytes()),
    ];
    for (what, body) in cases {
        let answer = client.send(Method::POST, "/v1/login", JSON, body).await;
        assert_eq!(answer.status, 400, "{what}: {}", String::from_utf8_lossy(&answer.body));
        drop(answer.refused(400, "request.json_invalid"));
    }
}

#[tokio::test]
async fn whatever_the_json_standard_allows_is_read() {
    let server = server().await;
    let password = server.password.clone().unwrap();
    let escaped: String = server.email.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let spaced = format!(
        "\r\n\t {{ \"\\u0074enant\" :\n\"{}\" ,\t\"email\":\"{escaped}\", \"password\" : \"{password}\" }} \n",
        server.tenant
    );
    drop(server.client().send(Method::POST, "/v1/login", JSON, spaced.clone()).await.expect(200));
    for media in ["application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"] {
        drop(server.client().send(Method::POST, "/v1/login", Some(media), spaced.clone()).await.expect(200));
    }
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_told_member_by_member() {
    let server = server().await;
    let client = server.client();
    let good = json!({ "tenant": "acme", "email": "a@acme.example", "password": passphrase("x") });
    let cases = [
        ("/tenant", json!(null)),
        ("/tenant", json!(7)),
        ("/tenant", json!(["acme"])),
        ("/tenant", json!("")),
        ("/tenant", json!("Not A Slug!")),
        ("/tenant", json!("a".repeat(200))),
        ("/email", json!("no-at-sign")),
        ("/email", json!("two@@acme.example")),
        ("/email", json!("a@acme.example\r\nBcc: b@b.example")),
        ("/email", json!(format!("{}@acme.example", "a".repeat(300)))),
        ("/password", json!(false)),
        ("/password", json!("p".repeat(2_000))),
    ];
    for (pointer, value) in cases {
        let mut body = good.clone();
        body[&pointer[1..]] = value.clone();
        let answer = client.post("/v1/login", body).await.refused(422, "request.input_invalid");
        assert_eq!(answer.text("/errors/0/pointer"), pointer, "{value}");
    }
    for missing in ["tenant", "email", "password"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(missing);
        drop(client.post("/v1/login", body).await.refused(422, "request.input_invalid"));
    }
    let mut more = good.clone();
    more["admin"] = json!(true);
    drop(client.post("/v1/login", more).await.refused(422, "request.input_invalid"));
    for top in ["[]", "1", "\"text\"", "null", "true"] {
        drop(client.send(Method::POST, "/v1/login", JSON, top).await.problem(422));
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_what_was_sent() {
    let server = server().await;
    let mark = "MARKER<script>alert(1)</script>";
    for body in [
        json!({ "tenant": mark, "email": mark, "password": mark }),
        json!({ mark: mark }),
        json!({ "tenant": { mark: mark } }),
    ] {
        let answer = server.client().post("/v1/login", body).await;
        assert!((400..500).contains(&answer.status));
        assert!(!String::from_utf8_lossy(&answer.body).contains("<script>"), "{answer:?}");
    }
    let answer =
        server.client().get("/<script>alert(1)</script>".replace('<', "%3C").replace('>', "%3E").as_str()).await;
    assert!(!String::from_utf8_lossy(&answer.problem(404).body).contains("<script>"));
}

#[tokio::test]
async fn another_media_type_is_refused() {
    let server = server().await;
    let body = json!({ "tenant": "acme", "email": "a@acme.example", "password": passphrase("x") }).to_string();
    for media in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/json"),
        Some("application/json; charset=utf-16"),
        Some("application/json, text/plain"),
        Some("application/jsonp"),
    ] {
        let answer = server.client().send(Method::POST, "/v1/login", media, body.clone()).await;
        assert_eq!(answer.status, 415, "{media:?}");
        drop(answer.refused(415, "request.media_type"));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let server = server().await;
    let head = "POST /v1/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let declared = format!("{head}Content-Length: 99999999\r\n\r\n");
    assert!(raw(&server.api, declared.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536));
    let streamed = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(40));
    let answer = raw(&server.api, streamed.as_bytes()).await;
    // The server may close before it has read everything; then the answer can be lost, but never a success.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    drop(server.owner().await);
}

#[tokio::test]
async fn no_bytes_whatever_are_an_internal_error() {
    let server = server().await;
    let client = server.client();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seed = br#"{"tenant":"acme","email":"a@acme.example","password":"\u0041 long enough one"}"#;
    for round in 0..300 {
        let mut body = seed.to_vec();
        for _ in 0..=round % 7 {
            let at = usize::try_from(next()).unwrap_or(0) % body.len();
            match next() % 3 {
                0 => body[at] = next().to_le_bytes()[0],
                1 => drop(body.remove(at)),
                _ => body.insert(at, next().to_le_bytes()[0]),
            }
        }
        let answer = client.send(Method::POST, "/v1/login", JSON, body.clone()).await;
        assert!((400..500).contains(&answer.status), "{} for {:?}", answer.status, String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn names_of_all_scripts_come_back_as_they_went() {
    let server = server().await;
    let owner = server.owner().await.client;
    let path = format!("/v1/users/{}", owner.get("/v1/whoami").await.expect(200).text("sub"));
    for name in [
        "O'Brien-Łukasz",
        "Anne-Marie D’Arcy",
        "王小明",
        "محمد",
        "Ðuro Žižić",
        "SELECT * FROM users; DROP TABLE users;--",
        "Robert'); DROP TABLE students;--",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "../../etc/passwd",
        "null",
        "undefined",
        "NaN",
        "0",
        "-1",
        "1e308",
        "true",
        "=1+1",
        "%s%n",
        "🦀 Ferris",
    ] {
        let answer = owner.patch(&path, json!({ "name": name })).await.expect(200);
        assert_eq!(answer.text("name"), name);
        assert_eq!(owner.get(&path).await.expect(200).text("name"), name);
    }
    for name in
        ["", "   ", "a\u{0}b", "a\u{7}b", "a\u{202e}b", "a\u{2066}b", "\u{feff}", "line\nbreak", &"x".repeat(1_000)]
    {
        drop(owner.patch(&path, json!({ "name": name })).await.refused(422, "request.input_invalid"));
    }
}

#[tokio::test]
async fn a_query_is_as_strict_as_a_body() {
    let server = server().await;
    let owner = server.owner().await.client;
    for query in
        ["limit=0", "limit=101", "limit=-1", "limit=1e3", "limit=x", "limit=", "limit=1&limit=2", "unheard_of=1"]
    {
        let answer = owner.get(&format!("/v1/users?{query}")).await;
        assert!(matches!(answer.status, 400 | 422), "{query}: {}", answer.status);
        let status = answer.status;
        drop(answer.problem(status));
    }
    for cursor in ["x", "AAAA", "%00", "%ff%fe", "' OR 1=1 --", &"A".repeat(5_000)] {
        let encoded = cursor.replace(' ', "%20").replace('\'', "%27");
        let answer = owner.get(&format!("/v1/users?after={encoded}")).await;
        assert!(matches!(answer.status, 400 | 414 | 422), "{cursor}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_cursor_of_one_list_does_not_open_another() {
    let server = server().await;
    let (owner, stranger) = (server.owner().await, server.signup("globex").await.client);
    drop(server.user(&owner, "member", "m@acme.example").await);
    let page = owner.client.get("/v1/users?limit=1").await.expect(200);
    let cursor = page.text("next");
    let answer = stranger.get(&format!("/v1/users?limit=1&after={cursor}")).await;
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
    assert!(!String::from_utf8_lossy(&answer.body).contains("acme"), "{answer:?}");
    drop(owner.client.get(&format!("/v1/audit?after={cursor}")).await.refused(400, "request.cursor_invalid"));
}

#[tokio::test]
async fn a_path_has_one_spelling() {
    let server = server().await;
    let owner = server.owner().await.client;
    for path in [
        "/v1/whoami/",
        "//v1/whoami",
        "/v1//whoami",
        "/V1/whoami",
        "/v1/./whoami",
        "/v1/x/../whoami",
        "/v1/%2e%2e/v1/whoami",
        "/v1%2fwhoami",
        "/v1/whoami%00",
        "/v1/whoami%20",
        "/v1/whoami;x=1",
        "/v1/users/%252e%252e%252fetc",
        "/v1/users/..%2f..%2fetc%2fpasswd",
        "/v1/users/%c0%ae%c0%ae",
        "/nothing",
        "/metrics",
        "/readyz",
    ] {
        let answer = owner.get(path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn an_undeclared_method_is_refused_with_the_declared_ones() {
    let server = server().await;
    let client = server.client();
    for method in ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = client.send(method.clone(), "/v1/login", None, "").await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
        drop(answer.refused(405, "request.method_not_allowed"));
    }
    let head = client.send(Method::HEAD, "/.well-known/jwks.json", None, "").await.expect(200);
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn what_is_not_http_is_not_answered_as_if_it_were() {
    let server = server().await;
    let huge = format!("GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(1_000_000));
    let lines = format!("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: a\r\n".repeat(10_000));
    let smuggled = "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("no version", b"GET /v1/whoami\r\n\r\n".to_vec()),
        ("version 9", b"GET /v1/whoami HTTP/9.9\r\nHost: x\r\n\r\n".to_vec()),
        (
            "two lengths",
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".to_vec(),
        ),
        ("length as text", b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: four\r\n\r\nabcd".to_vec()),
        ("negative length", b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\nabcd".to_vec()),
        (
            "unknown coding",
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("space in a name", b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n".to_vec()),
        ("folded line", b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n".to_vec()),
        ("NUL in a value", b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n".to_vec()),
        ("a megabyte of header", huge.into_bytes()),
        ("ten thousand headers", lines.into_bytes()),
        ("smuggled", smuggled.as_bytes().to_vec()),
    ];
    for (what, bytes) in cases {
        let answer = raw(&server.api, &bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
            "{what}: {answer}"
        );
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: a second request was seen: {answer}");
    }
    drop(server.owner().await.client.get("/v1/whoami").await.expect(200));
}
