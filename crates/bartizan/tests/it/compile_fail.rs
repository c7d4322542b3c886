//! What must not compile, and what the compiler says about it. One run of cargo for all cases; the messages are those of
//! the pinned toolchain. After changing a message: `TRYBUILD=overwrite cargo test -p bartizan --test it compile_fail`.

#[test]
fn mistakes_do_not_compile_and_the_message_names_the_culprit() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
