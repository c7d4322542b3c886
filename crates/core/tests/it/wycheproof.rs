//! The JOSE vectors of Project Wycheproof, every case, answered as their README says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bartizan_core::token::{Jws, KeyError, KeySet, Rejection, VerificationKey};
use serde_json::Value;

use crate::forge::{not_run, say};

/// Larger than any vector; access tokens have a limit of their own.
const LIMIT: usize = 64 * 1024;

#[derive(Debug, PartialEq)]
enum Answer {
    Accepted,
    BadKey(KeyError),
    Refused(Rejection),
}

fn answer(keys: &Value, token: &Value) -> Answer {
    let json = serde_json::to_vec(keys).unwrap();
    let set = if keys.get("keys").is_some() {
        KeySet::from_jwks(&json)
    } else {
        VerificationKey::from_jwk(&json).and_then(|key| KeySet::new([key]))
    };
    let set = match set {
        Ok(set) => set,
        Err(error) => return Answer::BadKey(error),
    };
    let text = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
    match Jws::parse(&text, LIMIT).and_then(|jws| jws.verify(&set)) {
        Ok(_) => Answer::Accepted,
        Err(rejection) => Answer::Refused(rejection),
    }
}

/// `BARTIZAN_WYCHEPROOF`, or `shared/wycheproof` beside the workspace.
fn directory() -> PathBuf {
    std::env::var_os("BARTIZAN_WYCHEPROOF")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wycheproof"), PathBuf::from)
}

/// Calls `case` with number, expected result and our answer; returns how many were seen and how many were JWE.
fn each(file: &str, mut case: impl FnMut(u64, bool, Answer)) -> Option<(u64, u64)> {
    let path = directory().join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        not_run(&format!("wycheproof {file}: not found beside the workspace"));
        return None;
    };
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let (mut seen, mut encrypted) = (0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = group.get("public").or_else(|| group.get("private")).unwrap();
        for test in group["tests"].as_array().unwrap() {
            seen += 1;
            match test.get("jws") {
                Some(token) => {
                    case(test["tcId"].as_u64().unwrap(), test["result"] == "valid", answer(keys, token));
                }
                None => encrypted += u64::from(test.get("jwe").is_some()),
            }
        }
    }
    assert_eq!(vectors["numberOfTests"].as_u64(), Some(seen), "{file}: not every case was seen");
    Some((seen, encrypted))
}

#[test]
fn signature_vectors_393_as_written_and_8_documented_exceptions() {
    // Beside each: what the file says is wrong with it, and what we answer.
    let exceptions = [
        // Byte for byte the valid case 357.
        (367, Answer::Accepted),
        (370, Answer::Accepted),
        // "Valid" with a `?` inside.
        (372, Answer::Refused(Rejection::Malformed)),
        (373, Answer::Refused(Rejection::Malformed)),
        // A PS256 key for a PS384 token.
        (346, Answer::Refused(Rejection::Algorithm)),
        (350, Answer::Refused(Rejection::Algorithm)),
        // ES512, which is not offered, under the misspelt name ES521.
        (347, Answer::BadKey(KeyError::Algorithm)),
        (351, Answer::BadKey(KeyError::Algorithm)),
    ];
    let (mut passed, mut excepted, mut wrong) = (0, 0, Vec::new());
    let seen = each("json_web_signature_test.json", |id, valid, answer| {
        if let Some((_, expected)) = exceptions.iter().find(|(known, _)| *known == id) {
            assert_ne!((answer == Answer::Accepted), valid, "case {id} is no exception any more");
            assert_eq!(answer, *expected, "case {id}");
            excepted += 1;
        } else if (answer == Answer::Accepted) == valid {
            passed += 1;
        } else {
            wrong.push((id, answer));
        }
    });
    let Some((seen, _)) = seen else { return };
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!((seen, passed, excepted), (401, 393, 8));
    say("wycheproof signature: 401 run, 393 passed, 8 documented exceptions, 0 skipped");
}

#[test]
fn key_vectors_26_of_26() {
    let (mut passed, mut wrong) = (0, Vec::new());
    let seen = each("json_web_key_test.json", |id, valid, answer| {
        let reason = match id {
            1 => Some(KeyError::Symmetric),
            // The second key of the duplicate pair has stray bits, which is noticed before the pair.
            4 => Some(KeyError::Malformed),
            6 | 21 => Some(KeyError::Usage),
            7 => Some(KeyError::Roca),
            8..=12 | 16..=18 => Some(KeyError::Weak),
            19 | 20 | 25 | 26 => Some(KeyError::Algorithm),
            // Called RSA, but has no modulus.
            24 => Some(KeyError::Malformed),
            22 => Some(KeyError::Point),
            _ => None,
        };
        if let Some(reason) = reason
            && answer != Answer::BadKey(reason)
        {
            wrong.push((id, answer));
        } else if (answer == Answer::Accepted) == valid {
            passed += 1;
        } else {
            wrong.push((id, answer));
        }
    });
    let Some((seen, _)) = seen else { return };
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!((seen, passed), (26, 26));
    say("wycheproof key: 26 run, 26 passed, 0 exceptions, 0 skipped");
}

#[test]
fn crypto_vectors_49_of_49_signatures_and_34_encryptions_skipped() {
    let (mut passed, mut ids, mut wrong) = (0, BTreeSet::new(), Vec::new());
    let seen = each("json_web_crypto_test.json", |id, valid, answer| {
        ids.insert(id);
        let reason = match id {
            46 => Some(Answer::BadKey(KeyError::Roca)),
            47 => Some(Answer::BadKey(KeyError::Symmetric)),
            _ => None,
        };
        if reason.is_none_or(|reason| reason == answer) && (answer == Answer::Accepted) == valid {
            passed += 1;
        } else {
            wrong.push((id, answer));
        }
    });
    let Some((seen, encrypted)) = seen else { return };
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(ids, (1..=49).collect());
    assert_eq!((seen, passed, encrypted), (83, 49, 34));
    say("wycheproof crypto: 49 JWS run, 49 passed, 0 exceptions, 34 JWE skipped (JWE is not read)");
}
