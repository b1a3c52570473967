/// Which tokens let their bearers in, and whose they are.
module Lightway.Specs.TokenLaws

open System
open System.Text
open System.Text.RegularExpressions
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol

let private claims hasAudience hasExpiry expiresAt =
    { HasAudience = hasAudience
      HasExpiry = hasExpiry
      ExpiresAt = expiresAt
      Subject = null }

let private wellFormed (text: string) =
    TokenRules.isWellFormed (ReadOnlySpan(Encoding.UTF8.GetBytes text))

/// Texts that are tokens, or nearly.
let private nearTokens =
    let junk = Gen.elements [ "="; " "; "é"; "+"; "/"; "\000" ]

    Gen.frequency [ 6, Gen.elements [ "a"; "Zz09-_" ]; 5, Gen.constant "."; 1, junk ]
    |> Gen.listOf
    |> Gen.resize 8
    |> Gen.map (String.concat "")
    |> Arb.fromGen

let laws =
    testList
        "token rules"
        [ testProperty "RFC 7515 §3.1: three parts of base64url, none of them empty, and nothing else"
          <| Prop.forAll nearTokens (fun text ->
              wellFormed text = Regex.IsMatch(text, @"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\z"))

          testCase "a part that is missing, empty or too many"
          <| fun () ->
              Expect.isTrue (wellFormed "a.b.c") "three"

              for text in [ ""; "a"; "a.b"; ".."; ".b.c"; "a..c"; "a.b."; "a.b.c."; "a.b.c.d"; ".a.b.c"; "a.b.c=" ] do
                  Expect.isFalse (wellFormed text) text

          testCase "a token has at most as many bytes as its frame has room for"
          <| fun () ->
              let ofLength length = String('a', length - 4) + ".b.c"
              Expect.isTrue (wellFormed (ofLength 1347)) "1347"
              Expect.isFalse (wellFormed (ofLength 1348)) "1348"

          testCase "§9.3: RS256 and ES256 by these names, and no other algorithm"
          <| fun () ->
              Expect.equal (TokenRules.algorithmOf "RS256") TokenAlgorithm.Rs256 ""
              Expect.equal (TokenRules.algorithmOf "ES256") TokenAlgorithm.Es256 ""

              for name in [ "rs256"; "none"; "HS256"; "RS384"; "PS256"; "ES256K"; "EdDSA"; ""; " RS256"; null ] do
                  Expect.equal (TokenRules.algorithmOf name) TokenAlgorithm.None $"{name}"

          testProperty "a token is over from 61 s after its expiry on, whatever the numbers"
          <| fun (expiresAt: int64) (now: int64) ->
              TokenRules.isOver (expiresAt, now) = (bigint expiresAt + 60I < bigint now)

          testCase "the second that a token is over"
          <| fun () ->
              for at in [ 0L; 1_800_000_000L; Int64.MinValue; Int64.MaxValue ] do
                  let over after =
                      let now = bigint at + after
                      now > bigint Int64.MaxValue || TokenRules.isOver (at, int64 now)

                  let isLast = at = Int64.MaxValue
                  Expect.equal (over 60I) isLast $"{at} + 60 s"
                  Expect.isTrue (over 61I) $"{at} + 61 s"

          testCase "nothing is over for a clock before all times"
          <| fun () ->
              for now in [ Int64.MinValue; Int64.MinValue + 60L ] do
                  Expect.isFalse (TokenRules.isOver (0L, now)) $"{now}"

          testProperty "it is allowed exactly if it has no audience and an expiry that is not over"
          <| fun hasAudience hasExpiry (expiresAt: int64) (now: int64) ->
              let verdict = TokenRules.verdict (claims hasAudience hasExpiry expiresAt, now)

              let allowed =
                  not hasAudience && hasExpiry && not (TokenRules.isOver (expiresAt, now))

              (verdict = TokenVerdict.Allowed) = allowed

          testCase "each refusal has its reason"
          <| fun () ->
              let verdict hasAudience hasExpiry =
                  TokenRules.verdict (claims hasAudience hasExpiry 0L, 1_800_000_000L)

              Expect.equal (verdict true false) TokenVerdict.ForAudience "an audience"
              Expect.equal (verdict false false) TokenVerdict.NoExpiry "no expiry"
              Expect.equal (verdict false true) TokenVerdict.Expired "expired"

          testProperty "a user's name is its subject, or the fingerprint where that is not fit for a line"
          <| fun (subject: string) (NonNull fingerprint) ->
              let user = TokenRules.userOf (subject, fingerprint)

              let isFit =
                  not (String.IsNullOrWhiteSpace subject)
                  && subject.Length <= 100
                  && subject |> Seq.forall (fun letter -> not (Char.IsControl letter || Char.IsSurrogate letter))

              user = (if isFit then subject else "token:" + fingerprint)

          testCase "the edges of a name"
          <| fun () ->
              let user subject = TokenRules.userOf (subject, "f")
              Expect.equal (user (String('x', 100))) (String('x', 100)) "100 characters"
              Expect.equal (user (String('x', 101))) "token:f" "101 characters"

              for subject in [ null; ""; " "; "a\nb"; "\u0085"; "a" + string (char 0xD800); "\u007F" ] do
                  Expect.equal (user subject) "token:f" $"%A{subject}"

              Expect.equal (user "ünï çødé") "ünï çødé" "letters of any script" ]
