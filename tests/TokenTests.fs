/// Tokens and the keys that verify them.
module Lightway.Tests.TokenTests

open System
open System.IO
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open Expecto
open Lightway.Hosting
open Lightway.Server.Auth
open Lightway.Tests

let private bytes (text: string) = Encoding.UTF8.GetBytes text

let private parse (content: string) =
    TokenKeys.Parse("keys", ReadOnlySpan(bytes content))

/// A clock that shows the same time always.
type StoppedClock(seconds: int64) =
    inherit TimeProvider()
    member val Seconds = seconds with get, set

    override this.GetUtcNow() =
        DateTimeOffset.FromUnixTimeSeconds this.Seconds

let private at = 1_800_000_000L

let private verifier (content: string) =
    new TokenVerifier(parse content, StoppedClock at)

let private check (verifier: TokenVerifier) (token: string) =
    verifier.Check(ReadOnlySpan(bytes token))

let private a = Jwt.a
let private pem () = (a ()).ExportSubjectPublicKeyInfoPem()
let private rs = """{"alg":"RS256"}"""
let private soon = $"""{{"sub":"me","exp":{at + 360L}}}"""

let private signed header payload =
    Jwt.token header payload (Jwt.rs256 (a ()))

let private expect verdict (answer: LoginAnswer) (parts: string list) =
    Expect.equal answer.Verdict verdict $"%A{answer.Error}"

    for part in parts do
        Expect.stringContains (string answer.Error) part "the log names it"

let private allowed answer = expect AuthVerdict.Allowed answer []
let private refused answer parts = expect AuthVerdict.Refused answer parts

let private claims =
    testList
        "Claims"
        [ for name, payload in
              [ "six minutes ahead", soon
                "a minute ago, within the leeway", $"""{{"exp":{at - 60L}}}"""
                "with a fraction", $"""{{"exp":{at}.75}}"""
                "as a power of ten", """{"exp":1.9e9}"""
                "not valid yet by nbf, which is not looked at", $"""{{"exp":{at + 9L},"nbf":{at + 5L}}}"""
                "of some issuer, with other claims",
                $"""{{"exp":{at + 9L},"iss":"x","jti":"7","iat":1,"x":{{"y":[null]}}}}""" ] do
              test $"a token that expires {name} is accepted" {
                  use tokens = verifier (pem ())
                  allowed (check tokens (signed rs payload))
              }

          for name, payload, part in
              [ "expired six minutes ago", $"""{{"exp":{at - 360L}}}""", "expired 360 s ago"
                "expired a second beyond the leeway", $"""{{"exp":{at - 61L}}}""", "expired"
                "has no expiry", """{"sub":"me"}""", "exp"
                "has an expiry that is text", $"""{{"exp":"{at + 360L}"}}""", "exp"
                "has an expiry beyond all numbers", """{"exp":1e400}""", ""
                "has an expiry of 10^300 s", """{"exp":1e300}""", ""
                "has an audience", $"""{{"exp":{at + 9L},"aud":"vpn"}}""", "aud"
                "has a list of audiences", $"""{{"exp":{at + 9L},"aud":["vpn"]}}""", "aud"
                "has an empty list of audiences", $"""{{"exp":{at + 9L},"aud":[]}}""", "aud"
                "has an audience that is null", $"""{{"exp":{at + 9L},"aud":null}}""", "aud"
                "is a list", "[]", ""
                "is no JSON", "exp", "" ] do
              test $"a token that {name} is refused" {
                  use tokens = verifier (pem ())
                  refused (check tokens (signed rs payload)) [ part ]
              }

          test "the user of a token is its subject; it expires as the token says" {
              use tokens = verifier (pem ())
              let answer = check tokens (signed rs soon)
              Expect.equal (answer.User, answer.ExpiresAt, answer.Means) ("me", at + 360L, LoginMeans.Token) ""
          }

          test "a token whose subject is no name has a user all the same, the same one each time" {
              use tokens = verifier (pem ())

              let userOf payload =
                  let answer = check tokens (signed rs payload)
                  allowed answer
                  answer.User

              let strange subject =
                  userOf $"""{{"exp":{at + 9L},"sub":"{subject}"}}"""

              for subject in [ ""; "  "; "a\\nb"; String('x', 101) ] do
                  Expect.stringStarts (strange subject) "token:" subject
                  Expect.equal (strange subject) (strange subject) "stable"

              Expect.notEqual (strange "a\\nb") (strange "a\\nc") "two subjects"
              let none expiry = userOf $"""{{"exp":{at + expiry}}}"""
              Expect.stringStarts (none 9L) "token:" "no subject"
              Expect.equal (none 9L) (none 9L) "the same token"
              Expect.notEqual (none 9L) (none 10L) "another token"
          } ]

let private signatures =
    testList
        "Signatures"
        [ test "ES256 is accepted by a P-256 key" {
              use tokens = verifier ((Jwt.p256 ()).ExportSubjectPublicKeyInfoPem())
              allowed (check tokens (Jwt.token """{"alg":"ES256"}""" soon (Jwt.es256 (Jwt.p256 ()))))
          }

          test "ES256 with a signature in DER is refused" {
              let der (bytes: byte[]) =
                  (Jwt.p256 ()).SignData(bytes, HashAlgorithmName.SHA256, DSASignatureFormat.Rfc3279DerSequence)

              use tokens = verifier ((Jwt.p256 ()).ExportSubjectPublicKeyInfoPem())
              refused (check tokens (Jwt.token """{"alg":"ES256"}""" soon der)) [ "signature" ]
          }

          for alg in
              [ "none"
                "None"
                "NONE"
                ""
                "rs256"
                "RS256 "
                "EdDSA"
                "HS256"
                "RS384"
                "RS512"
                "PS256"
                "ES384" ] do
              test $"the algorithm '{alg}' is refused, though the signature is that of RS256" {
                  use tokens = verifier (pem ())
                  let token = signed $"""{{"alg":"{alg}"}}""" soon
                  refused (check tokens token) [ "algorithm" ]
              }

          test "a header without algorithm, or with one that is no text, is refused" {
              use tokens = verifier (pem ())

              for header in [ "{}"; """{"alg":null}"""; """{"alg":["RS256"]}"""; """{"alg":256}"""; "[]"; "1"; "" ] do
                  let answer = check tokens (signed header soon)
                  Expect.equal answer.Verdict AuthVerdict.Refused header
          }

          test "no signature is no token" {
              use tokens = verifier (pem ())
              let whole = signed """{"alg":"none"}""" soon
              let bare = whole.Substring(0, whole.LastIndexOf '.')
              refused (check tokens bare) [ "not a signed token" ]
              refused (check tokens (bare + ".")) [ "not a signed token" ]
          }

          test "a token that the public key itself authenticates (HMAC) is refused, whatever it says" {
              let key = a ()

              let secrets =
                  [ bytes (pem ())
                    bytes ((pem ()).Trim() + "\n")
                    key.ExportSubjectPublicKeyInfo()
                    key.ExportRSAPublicKey()
                    bytes (key.ExportRSAPublicKeyPem()) ]

              use tokens = verifier (pem ())
              use both = verifier (Jwt.set [ Jwt.jwk key ",\"kid\":\"k\"" ])

              for secret in secrets do
                  for header in [ """{"alg":"HS256"}"""; rs; """{"alg":"HS256","kid":"k"}""" ] do
                      let forged = Jwt.token header soon (fun head -> HMACSHA256.HashData(secret, head))

                      for tokens in [ tokens; both ] do
                          refused (check tokens forged) []
          }

          test "another key's token is refused, also if it brings its key along" {
              let own = Jwt.jwk (Jwt.b ()) ""

              use tokens = verifier (pem ())

              for header in
                  [ rs; $"""{{"alg":"RS256","jwk":{own}}}"""; """{"alg":"RS256","jku":"http://127.0.0.1/"}""" ] do
                  refused (check tokens (Jwt.token header soon (Jwt.rs256 (Jwt.b ())))) [ "signature" ]
          }

          test "an RSA key does not verify ES256, nor a P-256 key RS256" {
              use rsa = verifier (pem ())

              refused
                  (check rsa (Jwt.token """{"alg":"ES256"}""" soon (Jwt.es256 (Jwt.p256 ()))))
                  [ "no key for ES256" ]

              use ec = verifier ((Jwt.p256 ()).ExportSubjectPublicKeyInfoPem())
              refused (check ec (signed rs soon)) [ "no key for RS256" ]
          }

          test "extensions that must be understood are not" {
              use tokens = verifier (pem ())
              refused (check tokens (signed """{"alg":"RS256","crit":["b64"],"b64":false}""" soon)) [ "crit" ]
          }

          test "a token of which any character was changed is refused" {
              use tokens = verifier (pem ())
              let token = signed rs soon
              allowed (check tokens token)

              // The last character of a part has bits that no byte of it needs.
              for i in 0 .. token.Length - 2 do
                  if token[i + 1] <> '.' then
                      let changed = StringBuilder token
                      changed[i] <- if token[i] = 'A' then 'B' else 'A'
                      let answer = check tokens (changed.ToString())
                      Expect.notEqual answer.Verdict AuthVerdict.Allowed $"character {i}"
          }

          test "garbage of every size is refused" {
              use tokens = verifier (pem ())
              let random = Random 7

              for length in 0..1400 do
                  let junk = Array.zeroCreate length
                  random.NextBytes junk
                  refused (tokens.Check(ReadOnlySpan junk)) [ "not a signed token" ]
                  let letters = String('a', length)
                  refused (check tokens letters) []
                  refused (check tokens (letters + "." + letters + "." + letters)) []
                  let cut = signed rs soon
                  refused (check tokens (cut.Substring(0, min length (cut.Length - 1)))) []
          }

          test "a token that is longer than its frame may be is not read" {
              use tokens = verifier (pem ())

              let filler length =
                  $"""{{"exp":{at + 9L},"x":"{String('x', length)}"}}"""

              let token length = signed rs (filler length)

              let longest =
                  Seq.initInfinite id |> Seq.takeWhile (fun i -> (token i).Length <= 1347) |> Seq.last

              allowed (check tokens (token longest))
              refused (check tokens (token (longest + 1))) [ "not a signed token" ]
          }

          testProperty "any text is refused, and nothing is raised"
          <| fun (head: string) (payload: string) (tail: byte[]) ->
              use tokens = verifier (pem ())
              let text = Jwt.token (string head) (string payload) (fun _ -> tail)

              (check tokens text).Verdict = AuthVerdict.Refused
              && (check tokens (string head)).Verdict = AuthVerdict.Refused ]

let private rotation =
    testList
        "Several keys"
        [ test "each key of a PEM file verifies, of whatever kind and form; a kid does not matter" {
              let content =
                  String.concat
                      "\n"
                      [ "# comments are skipped"
                        pem ()
                        (Jwt.b ()).ExportRSAPublicKeyPem()
                        (Jwt.p256 ()).ExportSubjectPublicKeyInfoPem() ]

              Expect.equal (parse content).Count 3 "keys"
              use tokens = verifier content
              allowed (check tokens (signed rs soon))
              allowed (check tokens (Jwt.token """{"alg":"RS256","kid":"any"}""" soon (Jwt.rs256 (Jwt.b ()))))
              allowed (check tokens (Jwt.token """{"alg":"ES256"}""" soon (Jwt.es256 (Jwt.p256 ()))))
          }

          test "of a key set, the kid of a token decides; without kid any key may have signed it" {
              use tokens =
                  verifier (
                      Jwt.set
                          [ Jwt.jwk (a ()) ",\"kid\":\"old\",\"use\":\"sig\",\"alg\":\"RS256\""
                            Jwt.jwk (Jwt.b ()) ",\"kid\":\"new\""
                            Jwt.ecJwk (Jwt.p256 ()) ",\"kid\":\"ec\"" ]
                  )

              let by key kid =
                  Jwt.token $"""{{"alg":"RS256"%s{kid}}}""" soon (Jwt.rs256 key)

              allowed (check tokens (by (a ()) ",\"kid\":\"old\""))
              allowed (check tokens (by (Jwt.b ()) ",\"kid\":\"new\""))
              allowed (check tokens (by (a ()) ""))
              allowed (check tokens (by (Jwt.b ()) ""))
              refused (check tokens (by (a ()) ",\"kid\":\"new\"")) [ "signature" ]
              refused (check tokens (by (a ()) ",\"kid\":\"other\"")) [ "no key"; "'other'" ]
              refused (check tokens (by (a ()) ",\"kid\":\"ec\"")) [ "no key" ]
              refused (check tokens (by (a ()) ",\"kid\":\"a\\nb\"")) [ "'a?b'" ]
          }

          test "keys that have no use here are skipped with a warning" {
              let keys =
                  parse (
                      Jwt.set
                          [ Jwt.jwk (a ()) ""
                            Jwt.jwk (Jwt.b ()) ",\"use\":\"enc\",\"kid\":\"e\""
                            Jwt.jwk (Jwt.b ()) ",\"alg\":\"RS512\",\"kid\":\"r\""
                            """{"kty":"oct","k":"c2VjcmV0"}"""
                            """{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"o"}""" ]
                  )

              Expect.equal keys.Count 1 "keys"
              Expect.equal keys.Warnings.Count 4 "warnings"
              let text = String.concat "\n" keys.Warnings

              for part in [ "'e' is not for signatures"; "RS512"; "oct"; "EdDSA is not served" ] do
                  Expect.stringContains text part ""
          }

          for name, content, parts in
              [ "nothing", (fun () -> ""), [ "no public key"; "openssl pkey" ]
                "text", (fun () -> "hello"), [ "no public key" ]
                "a private key", (fun () -> (a ()).ExportPkcs8PrivateKeyPem()), [ "private key"; "-pubout" ]
                "an RSA private key", (fun () -> (a ()).ExportRSAPrivateKeyPem()), [ "private key"; "-pubout" ]
                "a short RSA key",
                (fun () -> (RSA.Create 1024).ExportSubjectPublicKeyInfoPem()),
                [ "1024 bits"; "2048" ]
                "a P-384 key",
                (fun () -> (ECDsa.Create ECCurve.NamedCurves.nistP384).ExportSubjectPublicKeyInfoPem()),
                [ "P-256" ]
                "a certificate",
                (fun () -> Encoding.ASCII.GetString TestCertificate.authority),
                [ "certificate"; "openssl x509" ]
                "an Ed25519 key", // RFC 8410 §10.1
                (fun () ->
                    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"),
                [ "EdDSA is not served"; "RS256" ]
                "a block that is damaged",
                (fun () -> "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
                [ "keys" ]
                "JSON without keys", (fun () -> "{}"), [ "no JSON Web Key Set" ]
                "JSON with keys that are none", (fun () -> """{"keys":[1]}"""), [ "no JSON Web Key Set" ]
                "JSON that ends early", (fun () -> "{\n\"keys\":["), [ "line 2"; "not valid JSON" ]
                "a key set without usable key",
                (fun () -> Jwt.set [ """{"kty":"oct","k":"AA"}""" ]),
                [ "no key for RS256"; "oct" ]
                "an empty key set", (fun () -> Jwt.set []), [ "no public key" ]
                "a key set with a private key",
                (fun () -> Jwt.set [ Jwt.jwk (a ()) ",\"d\":\"AA\"" ]),
                [ "private key" ]
                "a key without modulus",
                (fun () -> Jwt.set [ """{"kty":"RSA","e":"AQAB","kid":"k"}""" ]),
                [ "'k'"; "\"n\" is missing" ]
                "a key whose modulus is no base64url",
                (fun () -> Jwt.set [ """{"kty":"RSA","n":"+/","e":"AQAB"}""" ]),
                [ "key 1" ]
                "a point that is not on the curve",
                (fun () -> Jwt.set [ """{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ","kid":"p"}""" ]),
                [ "'p'" ]
                "too many keys",
                (fun () -> Jwt.set (List.replicate 65 (Jwt.jwk (a ()) ""))),
                [ "65 keys"; "at most 64" ] ] do
              test $"a file with {name} is refused, with a remedy" {
                  let message =
                      try
                          parse (content ()) |> ignore
                          ""
                      with :? ConfigurationException as error ->
                          error.Message

                  Expect.stringStarts message "token_rsa_pub_key_pem: " "the option"
                  Expect.isFalse (message.Contains '\n') "one line"

                  for part in parts do
                      Expect.stringContains message part ""
              }

          test "a file that is missing is refused" {
              Expect.throwsT<ConfigurationException>
                  (fun () -> TokenKeys.Load(Path.Combine(Path.GetTempPath(), Path.GetRandomFileName())) |> ignore)
                  ""
          }

          test "checks from many threads at once do not disturb each other" {
              use tokens = verifier (pem ())
              let right = signed rs soon
              let wrong = Jwt.token rs soon (Jwt.rs256 (Jwt.b ()))
              let mistakes = ref 0

              Threading.Tasks.Parallel.For(
                  0,
                  400,
                  fun i ->
                      let token, verdict =
                          if i % 2 = 0 then
                              right, AuthVerdict.Allowed
                          else
                              wrong, AuthVerdict.Refused

                      if (check tokens token).Verdict <> verdict then
                          Threading.Interlocked.Increment mistakes |> ignore
              )
              |> ignore

              Expect.equal mistakes.Value 0 ""
          } ]

let tests: Test = testList "Tokens" [ claims; signatures; rotation ]
