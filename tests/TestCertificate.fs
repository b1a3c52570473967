/// A certificate for tests that need one and do not look at it: its own authority, valid for a day.
module Lightway.Tests.TestCertificate

open System
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open Lightway.Tunnel.Tls

let private make () =
    use key = ECDsa.Create ECCurve.NamedCurves.nistP256
    let request = CertificateRequest("CN=lightway-tests", key, HashAlgorithmName.SHA256)
    request.CertificateExtensions.Add(X509BasicConstraintsExtension(true, false, 0, true))

    use own =
        request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays -1., DateTimeOffset.UtcNow.AddDays 1.)

    Encoding.ASCII.GetBytes(own.ExportCertificatePem()), Encoding.ASCII.GetBytes(key.ExportPkcs8PrivateKeyPem())

let authority, key = make ()

let private clientOf (authority: byte[]) (name: string | null) =
    TlsContext.ForClient(authority, name, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

/// What a client needs that trusts it.
let clientTls () = clientOf authority null

/// What a client has that trusts another authority.
let strangerTls () = clientOf (fst (make ())) null

/// What a client has that expects another name.
let otherNameTls () = clientOf authority "other.example.com"
