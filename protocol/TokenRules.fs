namespace Lightway.Protocol

open System

/// How a token is signed (RFC 7518 §3.1).
type TokenAlgorithm =
    /// Any other: refused, whatever the signature.
    | None = 0
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    | Rs256 = 1
    /// ECDSA with P-256 and SHA-256.
    | Es256 = 2

/// Whether a token whose signature is right lets its bearer in.
type TokenVerdict =
    /// It has no `exp` that is a number.
    | NoExpiry = 0
    | Expired = 1
    /// It is for an audience (`aud`), and this server is none.
    | ForAudience = 2
    | Allowed = 3

/// What is read of a token (RFC 7519 §4.1).
[<Struct>]
type TokenClaims =
    {
        HasAudience: bool
        HasExpiry: bool
        /// Seconds since 1970, UTC.
        ExpiresAt: int64
        /// `sub`; null if there is none, or if it is not text.
        Subject: string
    }

/// Rules for tokens (JWT): those of the reference server. `nbf` and `iss` are not looked at.
/// Laws: all functions are total. A token is allowed exactly if it has no audience and expires later than the leeway
/// before now. Two different subjects never share a user name unless their fingerprints are equal.
[<RequireQualifiedAccess>]
module TokenRules =
    /// Bytes of the longest token, that of the frame (`AuthRequest`).
    [<Literal>]
    let MaxBytes = 1347

    /// Seconds that a clock may be wrong by.
    [<Literal>]
    let Leeway = 60L

    /// Characters of a user name that comes from a token.
    [<Literal>]
    let MaxUser = 100

    /// The algorithm of a header; names are case-sensitive (RFC 7515 §4.1.1).
    let algorithmOf (name: string) : TokenAlgorithm =
        match name with
        | "RS256" -> TokenAlgorithm.Rs256
        | "ES256" -> TokenAlgorithm.Es256
        | _ -> TokenAlgorithm.None

    /// Three parts in base64url, none of them empty, of at most `MaxBytes` together (RFC 7515 §3.1): whatever else it is,
    /// nobody has to read it.
    let isWellFormed (token: ReadOnlySpan<byte>) : bool =
        let mutable dots = 0
        let mutable isRight = token.Length <= MaxBytes
        let mutable length = 0 // of the part

        if isRight then
            for letter in token do
                if letter = byte '.' then
                    isRight <- isRight && length > 0
                    dots <- dots + 1
                    length <- 0
                else
                    let isBase64 =
                        Char.IsAsciiLetterOrDigit(char letter) || letter = byte '-' || letter = byte '_'

                    isRight <- isRight && isBase64
                    length <- length + 1

        isRight && dots = 2 && length > 0

    /// Whether a token that expires then is over. Both in seconds since 1970.
    let isOver (expiresAt: int64, now: int64) : bool =
        now > Int64.MinValue + Leeway && expiresAt < now - Leeway

    /// now: seconds since 1970.
    let verdict (claims: TokenClaims, now: int64) : TokenVerdict =
        if claims.HasAudience then
            TokenVerdict.ForAudience
        elif not claims.HasExpiry then
            TokenVerdict.NoExpiry
        elif isOver (claims.ExpiresAt, now) then
            TokenVerdict.Expired
        else
            TokenVerdict.Allowed

    let private isFit (subject: string) : bool =
        let mutable isFit = subject.Length > 0 && subject.Length <= MaxUser

        for letter in subject do
            isFit <- isFit && not (Char.IsControl letter) && not (Char.IsSurrogate letter)

        isFit && subject.Trim().Length > 0

    /// Name of a token's user: its subject, if that is text fit for a line of the log; else the fingerprint, in a form that
    /// no user of a password file has.
    /// fingerprint: of the subject, or of the token if it has none.
    let userOf (subject: string, fingerprint: string) : string =
        if not (isNull subject) && isFit subject then
            subject
        else
            "token:" + fingerprint
