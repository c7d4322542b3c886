//! Every error code, in one place. Each has a section in `docs/errors.md`; a test keeps the two equal.

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:literal, $title:literal, $hint:literal;)+) => {
        /// A stable error code: part of the interface, never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = concat!("`", $code, "`: ", $title, " (", stringify!($status), ")")] $variant,)+
        }

        impl Code {
            /// Every code, in order of declaration.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }

            /// The short title, the same for every occurrence (RFC 9457 section 3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)+ }
            }

            /// What the caller can do.
            pub const fn hint(self) -> &'static str {
                match self { $(Code::$variant => $hint,)+ }
            }
        }
    };
}

codes! {
    // Who is asking
    CredentialMissing = "auth.credential_missing", 401, "No credential", "Send an access token in the Authorization header.";
    CredentialInvalid = "auth.credential_invalid", 401, "Credential not accepted", "Log in again or refresh the access token.";
    CredentialExpired = "auth.credential_expired", 401, "Credential expired", "Refresh the access token.";
    CredentialRevoked = "auth.credential_revoked", 401, "Credential revoked", "Log in again.";
    LoginFailed = "auth.login_failed", 401, "Login failed", "Check tenant, e-mail and password.";
    RefreshInvalid = "auth.refresh_invalid", 401, "Refresh token not accepted", "Log in again.";
    PasswordWrong = "auth.password_wrong", 403, "Current password is wrong", "Enter the password you log in with.";
    // May they
    PermissionDenied = "access.denied", 403, "Not allowed", "Ask an owner or admin of your tenant for this permission.";
    RankTooLow = "access.rank_too_low", 403, "Not allowed on this user", "Only someone of the same or a higher role may do this.";
    LastOwner = "access.last_owner", 409, "A tenant needs an owner", "Make somebody else owner first.";
    CrossSite = "request.cross_site", 403, "Cross-site request refused", "Send the request from the application's own origin.";
    AddressBlocked = "access.address_blocked", 403, "Address blocked", "If you think this is a mistake, contact the operator with the request id.";
    // How often
    QuotaExceeded = "limit.quota_exceeded", 429, "Too many requests", "Wait as long as Retry-After says.";
    AbnormalUsage = "limit.abnormal_usage", 429, "Temporarily refused", "Too many refused requests from here; wait as long as Retry-After says.";
    Busy = "server.busy", 503, "Busy", "Try again after the time in Retry-After.";
    // What was sent
    NotFound = "request.not_found", 404, "Not found", "There is nothing here that you may see.";
    MethodNotAllowed = "request.method_not_allowed", 405, "Method not allowed", "See the Allow header for the methods of this resource.";
    MediaTypeUnsupported = "request.media_type", 415, "Media type not supported", "Send the media type the operation declares, such as application/json.";
    BodyTooLarge = "request.body_too_large", 413, "Body too large", "Send less in one request.";
    BodyTimeout = "request.timeout", 408, "Request took too long", "Send the body without pauses.";
    Malformed = "request.malformed", 400, "Not a request", "Send one message as RFC 9112 describes it, and to a port that speaks TLS over TLS.";
    HeadTooLarge = "request.head_too_large", 431, "Head too large", "Send fewer or shorter headers, or a shorter address.";
    HeaderInvalid = "request.header_invalid", 400, "Header not accepted", "Check the named header.";
    EncodingInvalid = "request.encoding_invalid", 400, "Encoding not accepted", "Percent-encode names and values as UTF-8 (RFC 3986), at most 64 of them.";
    JsonInvalid = "request.json_invalid", 400, "Body is not acceptable JSON", "Send one JSON value (RFC 8259) in UTF-8, without duplicate members.";
    InputInvalid = "request.input_invalid", 422, "Input not accepted", "Mend the fields named in errors.";
    CursorInvalid = "request.cursor_invalid", 400, "Cursor not accepted", "Use the cursor from the last page unchanged, or start without one.";
    // State
    Conflict = "state.conflict", 409, "Conflict", "Something else changed meanwhile; read it again.";
    SlugTaken = "tenant.slug_taken", 409, "Tenant name taken", "Choose another tenant name.";
    EmailTaken = "user.email_taken", 409, "E-mail in use", "A user of this tenant already has this e-mail.";
    IdempotencyConflict = "request.idempotency_conflict", 409, "Idempotency key in use", "This key was used for a different request, or its first request is still running.";
    PasswordUnacceptable = "password.unacceptable", 422, "Password not acceptable", "Choose a longer password that is not on the list of common ones.";
    // Ours
    Internal = "server.internal", 500, "Internal error", "Tell the operator the request id.";
    OutcomeUnknown = "server.outcome_unknown", 503, "Outcome unknown", "The change may or may not have been made: look, or repeat it with the same Idempotency-Key.";
    StorageUnavailable = "server.storage_unavailable", 503, "Storage unavailable", "Nothing was changed. Try again after the time in Retry-After.";
    RouteUndeclared = "route.undeclared", 404, "Not found", "There is nothing here that you may see.";
}

#[cfg(test)]
mod tests {
    use super::Code;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            assert!((400..600).contains(&code.status()));
            assert!(code.hint().ends_with('.') && !code.title().ends_with('.'), "{code:?}");
        }
    }
}
