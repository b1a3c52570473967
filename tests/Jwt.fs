/// Tokens as an issuer makes them, by .NET's own signatures.
module Lightway.Tests.Jwt

open System
open System.Buffers.Text
open System.Security.Cryptography
open System.Text

let base64 (bytes: byte[]) =
    Base64Url.EncodeToString(ReadOnlySpan bytes)

let private part (json: string) = base64 (Encoding.UTF8.GetBytes json)

/// The two parts that are signed, and what `sign` makes of them.
let token (header: string) (payload: string) (sign: byte[] -> byte[]) : string =
    let head = $"{part header}.{part payload}"
    $"{head}.{base64 (sign (Encoding.ASCII.GetBytes head))}"

let rs256 (key: RSA) (bytes: byte[]) =
    key.SignData(bytes, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1)

let es256 (key: ECDsa) (bytes: byte[]) =
    key.SignData(bytes, HashAlgorithmName.SHA256)

let now () =
    DateTimeOffset.UtcNow.ToUnixTimeSeconds()

/// A token of a user that is valid for as many seconds.
let ofUser (key: RSA) (user: string) (seconds: int64) : string =
    token """{"alg":"RS256","typ":"JWT"}""" $"""{{"sub":"{user}","exp":{now () + seconds}}}""" (rs256 key)

/// Keys take a while to make: all tests share these.
let private shared (make: unit -> 'Key) = lazy make ()

let private rsaA = shared (fun () -> RSA.Create 2048)
let private rsaB = shared (fun () -> RSA.Create 2048)
let private p256A = shared (fun () -> ECDsa.Create ECCurve.NamedCurves.nistP256)

let a () = rsaA.Value
let b () = rsaB.Value
let p256 () = p256A.Value

/// A key of a JSON Web Key Set.
let jwk (key: RSA) (extra: string) =
    let numbers = key.ExportParameters false
    $"""{{"kty":"RSA","n":"{base64 numbers.Modulus}","e":"{base64 numbers.Exponent}"{extra}}}"""

let ecJwk (key: ECDsa) (extra: string) =
    let point = (key.ExportParameters false).Q
    $"""{{"kty":"EC","crv":"P-256","x":"{base64 point.X}","y":"{base64 point.Y}"{extra}}}"""

let set (keys: string list) =
    let list = String.concat "," keys
    $"""{{"keys":[{list}]}}"""
