/// Checksums as Wireshark computes them: a pcap file of raw IP packets, read by tshark with every validation on.
module Lightway.Specs.Oracles.Tshark

open System
open System.Diagnostics
open System.IO

/// LINKTYPE_RAW of the pcap registry: packets start with their IP header, of either version.
[<Literal>]
let private LinkTypeRaw = 101u

/// Classic pcap: a header of 24 bytes, then 16 bytes before each packet (RFC draft ietf-opsawg-pcap, section 4).
let private writePcap (file: string) (packets: byte[] list) =
    use stream = File.Create file
    use writer = new BinaryWriter(stream)

    for word in [ 0xA1B2C3D4u; 0x00040002u; 0u; 0u; 65535u; LinkTypeRaw ] do
        writer.Write word

    packets
    |> List.iteri (fun i packet ->
        for word in [ uint32 i; 0u; uint32 packet.Length; uint32 packet.Length ] do
            writer.Write word

        writer.Write packet)

let private isInstalled () =
    (Environment.GetEnvironmentVariable "PATH").Split ':'
    |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, "tshark")))

/// tshark's verdict on each packet: for the IP and the transport checksum "1" good, "0" bad, or nothing for "none".
let private read (file: string) : string list =
    let validated = [ "ip.check_checksum"; "tcp.check_checksum"; "udp.check_checksum" ]
    let fields = [ "ip.checksum.status"; "tcp.checksum.status"; "udp.checksum.status" ]

    let arguments =
        [ "-r"; file; "-T"; "fields"; "-E"; "separator=," ]
        @ [ for name in validated do
                yield! [ "-o"; $"{name}:TRUE" ] ]
        @ [ for name in fields do
                yield! [ "-e"; name ] ]

    use tshark =
        Process.Start(
            ProcessStartInfo("tshark", arguments, RedirectStandardOutput = true, RedirectStandardError = true)
        )

    let errors = tshark.StandardError.ReadToEndAsync()
    let output = tshark.StandardOutput.ReadToEnd()
    tshark.WaitForExit()

    if tshark.ExitCode <> 0 then
        failwith $"tshark: {errors.Result}"

    output.Split('\n', StringSplitOptions.RemoveEmptyEntries) |> List.ofArray

/// For each packet, whether tshark finds every checksum there and right. Error: tshark is not installed.
let judge (packets: byte[] list) : Result<bool list, string> =
    if not (isInstalled ()) then
        Error "tshark is not installed"
    else
        let file = Path.GetTempFileName()

        try
            writePcap file packets

            let isRight (packet: byte[]) (line: string) =
                let found = line.Split ',' |> Array.filter ((<>) "")
                let expected = if packet[0] >>> 4 = 4uy then 2 else 1 // IPv6 has no header checksum
                found.Length = expected && Array.forall ((=) "1") found

            Ok(List.map2 isRight packets (read file))
        finally
            File.Delete file
