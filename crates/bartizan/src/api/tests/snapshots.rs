//! What people read: the printed table and the document.

use super::app::{RoleGate, api, defaults};

#[test]
fn the_table_shows_adopted_and_public_rows_first() {
    let mounted = api().finish(RoleGate::default(), defaults()).unwrap();
    insta::assert_snapshot!("table", mounted.table);
    let json = serde_json::to_value(&mounted.table).unwrap();
    assert_eq!(json[0]["adopted"], "streams");
    assert_eq!(json[0]["access"]["requires"]["action"], "tenant.update");
}

#[test]
fn the_document_has_exactly_the_declared_operations() {
    let mounted = api().finish(RoleGate::default(), defaults()).unwrap();
    let mut operations = 0;
    for row in mounted.table.rows().iter().filter(|row| row.adopted.is_none()) {
        let operation = &mounted.openapi["paths"][&row.path][row.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], row.operation_id.as_str());
        operations += 1;
    }
    let paths = mounted.openapi["paths"].as_object().unwrap();
    assert_eq!(paths.values().map(|path| path.as_object().unwrap().len()).sum::<usize>(), operations);
}

#[test]
fn the_document_is_what_a_reviewer_saw() {
    let mounted = api().finish(RoleGate::default(), defaults()).unwrap();
    insta::assert_json_snapshot!("openapi", mounted.openapi);
}
