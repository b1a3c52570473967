/// A certificate that is the same in every run, so that its bytes do not make one run differ from another. Nobody trusts
/// it but the simulation: the key is no secret.
[<RequireQualifiedAccess>]
module Lightway.Tests.Simulation.FixedCertificate

open System.Text

/// Its own authority, valid until 2049.
let certificate =
    Encoding.ASCII.GetBytes
        """-----BEGIN CERTIFICATE-----
MIIBXTCCAQOgAwIBAgIBATAKBggqhkjOPQQDAjAeMRwwGgYDVQQDDBNsaWdodHdh
eS1zaW11bGF0aW9uMB4XDTIwMDEwMTAwMDAwMFoXDTQ5MTIzMTAwMDAwMFowHjEc
MBoGA1UEAwwTbGlnaHR3YXktc2ltdWxhdGlvbjBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABKFL+9nGk3bNKfkofUdIUcTAutjJNThvcTGmvEYk1NJkNL9DpKGqjWU9
c7M8w9fyv7suvqoWW/XJgKxSWV7v9vCjMjAwMA8GA1UdEwEB/wQFMAMBAf8wHQYD
VR0OBBYEFLzLsL7CzdFO7brMOcz3XfcramtHMAoGCCqGSM49BAMCA0gAMEUCIEsv
D85ivFfEUhqPaRsPtYy2iTjiSZQSt0x7oBiTEm+QAiEAiKHHMDZ3D7ahYrJwBphv
SxayQyBmtXk9mwWo3VgUyxQ=
-----END CERTIFICATE-----
"""

let key =
    Encoding.ASCII.GetBytes
        """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghPIsW4VlqJQAJwgZ
4isWBURku0yNq9XGjvxN2Q2wZhChRANCAAShS/vZxpN2zSn5KH1HSFHEwLrYyTU4
b3ExprxGJNTSZDS/Q6Shqo1lPXOzPMPX8r+7Lr6qFlv1yYCsUlle7/bw
-----END PRIVATE KEY-----
"""
