/// wolfSSL: the one named by LIGHTWAY_WOLFSSL, else the system's, else our own build in artifacts/native.
module Native

#load "Steps.fsx"

open System
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text
open Fake.IO
open Fake.IO.FileSystemOperators
open Steps

let nativeFolder = artifacts </> "native"

let exportsDtls13 (library: string) =
    match NativeLibrary.TryLoad library with
    | false, _ -> false
    | true, handle ->
        let found, _ = NativeLibrary.TryGetExport(handle, "wolfDTLSv1_3_server_method")
        NativeLibrary.Free handle
        found

/// What the build of the library depends on; when it has not changed, the library is not built again.
let nativeStamp () =
    [ "wolfssl.pin"; "wolfssl.flags"; "build.sh" ]
    |> List.map (fun file -> File.ReadAllText(root </> "native" </> file))
    |> String.concat "\000"
    |> Encoding.UTF8.GetBytes
    |> SHA256.HashData
    |> Convert.ToHexStringLower

let buildNative () =
    let library = nativeFolder </> "libwolfssl.so"
    let stampFile = nativeFolder </> "stamp"
    let isCurrent = File.Exists stampFile && File.ReadAllText stampFile = nativeStamp ()

    if isCurrent && exportsDtls13 library then
        say $"""wolfSSL {File.ReadAllText(nativeFolder </> "version").Trim()} is built already"""
    else
        installCompiler ()
        Shell.cleanDir nativeFolder
        run "bash" [ root </> "native" </> "build.sh"; nativeFolder ]

        if not (exportsDtls13 library) then
            failwith $"{library} was built without DTLS 1.3: see {nativeFolder}/build.log"

        File.WriteAllText(stampFile, nativeStamp ())

    Environment.SetEnvironmentVariable("LIGHTWAY_WOLFSSL", library)

let native () =
    match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
    | path when not (String.IsNullOrEmpty path) ->
        if not (File.Exists path) then
            failwith
                $"LIGHTWAY_WOLFSSL names {path}, which does not exist. Correct it, or unset it to have wolfSSL built."

        if not (exportsDtls13 path) then
            failwith
                $"LIGHTWAY_WOLFSSL names {path}, which is not wolfSSL with DTLS 1.3. Unset it to have wolfSSL built."

        say $"wolfSSL is {path}, as LIGHTWAY_WOLFSSL says"
    | _ when exportsDtls13 "libwolfssl.so" -> say "wolfSSL is the system's"
    | _ -> buildNative ()

/// Intel IPsec-MB, which programs look for beside them, by its soname; none where this machine does not have it.
let ipsecMb () : string option =
    if RuntimeInformation.ProcessArchitecture <> Architecture.X64 then
        None
    else
        [ for folder in [ "/usr/local/lib"; "/usr/lib/x86_64-linux-gnu"; "/usr/lib64"; "/usr/lib" ] do
              for version in [ 1; 2 ] do
                  folder </> $"libIPSec_MB.so.{version}" ]
        |> List.tryFind File.Exists
