/// Certificates and keys that the options name, and what is said of those that are none.
module Lightway.Tests.PemFilesTests

open System
open System.IO
open System.Text
open Expecto
open Lightway.Hosting

let private problem (content: PemContent) (text: string) =
    match PemFiles.Problem("/etc/lw/file", ReadOnlySpan(Encoding.UTF8.GetBytes text), content) with
    | null -> "none"
    | problem -> problem

let private armoured label =
    $"-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n"

let tests =
    testList
        "PEM files"
        [ for label in [ "PRIVATE KEY"; "RSA PRIVATE KEY"; "EC PRIVATE KEY" ] do
              test $"{label}: taken, also behind other text and with CRLF" {
                  let text = "\uFEFFsubject=CN = x\r\n" + (armoured label).Replace("\n", "\r\n")
                  Expect.equal (problem PemContent.PrivateKey text) "none" "no problem"
              }

          test "a chain with its key in one file serves as both" {
              let text = armoured "CERTIFICATE" + armoured "CERTIFICATE" + armoured "PRIVATE KEY"

              for content in [ PemContent.Certificate; PemContent.PrivateKey ] do
                  Expect.equal (problem content text) "none" "no problem"
          }

          for content, text, expected in
              [ PemContent.PrivateKey,
                armoured "ENCRYPTED PRIVATE KEY",
                "\"/etc/lw/file\" is encrypted; run: openssl pkey -in /etc/lw/file -out /etc/lw/file.plain && chmod 600 /etc/lw/file.plain"
                PemContent.PrivateKey, armoured "CERTIFICATE", "\"/etc/lw/file\" holds no private key but: CERTIFICATE"
                PemContent.Certificate,
                armoured "EC PRIVATE KEY",
                "\"/etc/lw/file\" holds no certificate but: EC PRIVATE KEY"
                PemContent.Certificate,
                "0\u0001\u0002",
                "\"/etc/lw/file\" is DER, not PEM; run: openssl x509 -inform DER -in /etc/lw/file -out /etc/lw/file.pem"
                PemContent.PrivateKey,
                "0\u0001\u0002",
                "\"/etc/lw/file\" is DER, not PEM; run: openssl pkey -inform DER -in /etc/lw/file -out /etc/lw/file.pem"
                PemContent.Certificate, "", "\"/etc/lw/file\" is not a PEM file with a certificate"
                PemContent.Certificate, "-----BEGIN CERT", "\"/etc/lw/file\" holds no certificate but: a cut label" ] do
              test $"{content}: {expected}" { Expect.equal (problem content text) expected "the sentence" }

          test "a file that does not exist is named with the option and the working directory" {
              let refusal =
                  try
                      PemFiles.Read("ca_cert", "no-such-file.crt", PemContent.Certificate) |> ignore
                      "no refusal"
                  with :? ConfigurationException as error ->
                      error.Message

              Expect.stringContains refusal "ca_cert: \"no-such-file.crt\" does not exist" "what"
              Expect.stringEnds refusal (Directory.GetCurrentDirectory()) "from where"
          } ]
