/// Bills of materials, SPDX 2.3 (ISO/IEC 5962): a package, its files, and what its program is made of.
module Bill

#load "Parts.fsx"

open System
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Fake.IO.FileSystemOperators
open Parts

/// Writes the bill of the package whose files are in `tree` to `folder`.
let sbom (folder: string) (tree: string) (program: string) (machine: Machine) =
    let package = $"lightway-{program}"
    let name = $"{package}_{version}_{machine.Debian}"

    let object (fields: (string * JsonNode) list) =
        JsonObject(fields |> List.map KeyValuePair)

    let text (value: string) : JsonNode = JsonValue.Create value

    let list (items: #JsonNode list) : JsonNode =
        JsonArray(Array.ofList (List.map (fun item -> item :> JsonNode) items))

    let id (value: string) =
        "SPDXRef-" + Regex.Replace(value, "[^A-Za-z0-9.-]", "-")

    let checksum (algorithm: string) (value: string) =
        object [ "algorithm", text algorithm; "checksumValue", text value ]

    let paths = filesOf tree

    let contents =
        paths |> List.map (fun path -> path, File.ReadAllBytes(tree </> path))

    // SPDX 2.3 §7.9: the SHA-1 of all files' SHA-1, sorted.
    let verification =
        contents
        |> List.map (fun (_, bytes) -> hex (SHA1.HashData bytes))
        |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))
        |> String.concat ""
        |> Encoding.ASCII.GetBytes
        |> SHA1.HashData
        |> hex

    let described (spdxId: string) name version licence supplier (more: (string * JsonNode) list) =
        object (
            [ "SPDXID", text spdxId
              "name", text name
              "versionInfo", text version
              "supplier", text supplier
              "downloadLocation", text "NOASSERTION"
              "licenseConcluded", text "NOASSERTION"
              "licenseDeclared", text licence
              "copyrightText", text "NOASSERTION" ]
            @ more
        )

    let reference (kind: string) (locator: string) =
        "externalRefs",
        list
            [ object
                  [ "referenceCategory", text "PACKAGE-MANAGER"
                    "referenceType", text kind
                    "referenceLocator", text locator ] ]

    let own =
        described
            (id package)
            package
            version
            "GPL-3.0-or-later"
            "Organization: The authors of Lightway for .NET"
            [ "filesAnalyzed", JsonValue.Create true
              "packageFileName", text $"{name}.deb"
              "packageVerificationCode", object [ ("packageVerificationCodeValue", text verification) ]
              reference "purl" $"pkg:deb/debian/{package}@{version}?arch={machine.Debian}" ]

    let notAnalyzed () : string * JsonNode = "filesAnalyzed", JsonValue.Create false

    let wolfSsl =
        described
            (id "wolfssl")
            "wolfssl"
            pin.Value["version"]
            "GPL-3.0-or-later"
            "Organization: wolfSSL Inc."
            [ notAnalyzed ()
              "checksums", list [ checksum "SHA256" pin.Value["sha256"] ]
              "sourceInfo", text $"""{pin.Value["upstream"]}, commit {pin.Value["commit"]}"""
              reference "purl" $"""pkg:github/wolfssl/wolfssl@v{pin.Value["version"]}-stable""" ]

    let libraries = parts program machine

    let others =
        [ for part in libraries do
              described
                  (id part.Name)
                  part.Name
                  part.Version
                  part.Licence
                  $"Organization: {part.Authors}"
                  [ notAnalyzed ()
                    if part.Hash <> "" then
                        "checksums", list [ checksum "SHA512" (hex (Convert.FromBase64String part.Hash)) ]
                    reference "purl" $"pkg:nuget/{part.Name}@{part.Version}" ] ]

    let fileId (path: string) = id ("File-" + path)

    let files =
        [ for path, bytes in contents do
              object
                  [ "SPDXID", text (fileId path)
                    "fileName", text ("./" + path)
                    "checksums",
                    list
                        [ checksum "SHA1" (hex (SHA1.HashData bytes)); checksum "SHA256" (hex (SHA256.HashData bytes)) ]
                    "licenseConcluded", text "NOASSERTION"
                    "copyrightText", text "NOASSERTION" ] ]

    let related (from: string) (kind: string) (target: string) =
        object [ "spdxElementId", text from; "relationshipType", text kind; "relatedSpdxElement", text target ]

    let relations =
        [ related "SPDXRef-DOCUMENT" "DESCRIBES" (id package)
          for path in paths do
              related (id package) "CONTAINS" (fileId path)
          related (id package) "CONTAINS" (id "wolfssl")
          for part in libraries do
              related (id package) "CONTAINS" (id part.Name) ]

    let document =
        object
            [ "spdxVersion", text "SPDX-2.3"
              "dataLicense", text "CC0-1.0"
              "SPDXID", text "SPDXRef-DOCUMENT"
              "name", text name
              "documentNamespace", text $"urn:lightway:sbom:{name}:{verification}"
              "creationInfo",
              object
                  [ "created", text (date.Value.ToString "yyyy-MM-ddTHH:mm:ssZ")
                    "creators", list [ text $"Tool: lightway-build-{version}" ] ]
              "packages", list (own :: wolfSsl :: others)
              "files", list files
              "relationships", list relations ]

    let options =
        JsonSerializerOptions(WriteIndented = true, Encoder = Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

    File.WriteAllText(folder </> $"{name}.spdx.json", document.ToJsonString options + "\n")
