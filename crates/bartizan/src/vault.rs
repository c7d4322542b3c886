//! The vault: seals and opens the fields that must not be readable in the database.
