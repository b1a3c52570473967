/// Segments compared, byte by byte, with those of the running kernel's software GSO. Needs root and /dev/net/tun.
module Lightway.Specs.KernelOracle

open System
open Expecto
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets
open Lightway.Specs.Oracles

/// A UDP superpacket of more segments is refused by the kernel: UDP_MAX_SEGMENTS, linux/udp.h; 128 since Linux 6.9.
[<Literal>]
let private UdpMaxSegments = 64

/// Shapes that the kernel segments: it leaves alone what fits into one segment, and takes no more than 64 of UDP.
/// Mostly up to 60 segments, and one in ten with as many as 65535 bytes have.
let private segmentable =
    Gen.frequency [ 9, shapes 1361 60; 1, shapes 1361 2000 ]
    |> Gen.map (fun shape ->
        let longest =
            if shape.IsUdp then
                shape.GsoSize * UdpMaxSegments
            else
                Int32.MaxValue

        { shape with
            PayloadLength = shape.PayloadLength |> min longest |> max (shape.GsoSize + 1) })

let private frameOf (superpacket: Superpacket) =
    let header = Array.zeroCreate VirtioNetHeader.Size
    let vnet = superpacket.Vnet
    VirtioNetHeader.write (&vnet, Span header)
    Array.append header superpacket.Packet

/// hdr_len may be any up to the packet's length; the kernel refuses more, so it is not an oracle there.
let private superpacketOf (shape: Shape) =
    let superpacket = build shape
    let hdrLen = min (int superpacket.Vnet.HdrLen) superpacket.Packet.Length

    { superpacket with
        Vnet =
            { superpacket.Vnet with
                HdrLen = uint16 hdrLen } }

/// Segments of a superpacket, by the length of its payload.
let private expected (superpacket: Superpacket) : int =
    let payload = superpacket.Packet.Length - superpacket.Known.HeaderLength
    (payload + superpacket.Known.GsoSize - 1) / superpacket.Known.GsoSize

type private Verdict =
    | Same of segments: int
    | Differs of index: int * ours: string * kernels: string

let private compare (ours: byte[] list) (kernels: byte[] list) : Verdict =
    let pick (segments: byte[] list) index =
        List.tryItem index segments |> Option.map Convert.ToHexString |> Option.defaultValue "none"

    if ours = kernels then
        Same ours.Length
    else
        let index =
            Seq.initInfinite id |> Seq.find (fun i -> List.tryItem i ours <> List.tryItem i kernels)

        Differs(index, pick ours index, pick kernels index)

/// One superpacket through both. A refusal by the kernel is a failure too: every shape is one that it takes.
let private judge (kernel: SoftwareGso.Kernel) (shape: Shape) : Verdict =
    let superpacket = superpacketOf shape

    let ours =
        match Cut.segments Cut.unlimited 0 superpacket.Vnet superpacket.Packet with
        | Ok segments -> segments
        | Error reason -> failwith $"refused ({reason}): %A{shape}"

    match kernel.Segment(shape.IsV6, frameOf superpacket, expected superpacket) with
    | Ok kernels -> compare ours kernels
    | Error errno -> failwith $"the kernel refused (errno {errno}): %A{shape}"

/// Samples in sizes of their own, so that growing the number keeps the first ones.
let private sample (seed: uint64) (count: int) =
    Gen.sampleWithSeed (FsCheck.Rnd seed) 100 count segmentable

/// The result, or a skipped test where the kernel or the container refuses.
let orSkip (oracle: string) (outcome: Result<'T, string>) : 'T =
    match outcome with
    | Ok result -> result
    | Error reason ->
        printfn $"{oracle}: skipped, {reason}"
        skiptest reason

/// Linux before 6.2 has no VIRTIO_NET_HDR_GSO_UDP_L4: there, TCP takes UDP's place.
let private takesUdp (kernel: SoftwareGso.Kernel) =
    let probe = superpacketOf { plainShape with IsUdp = true }
    Result.isOk (kernel.Segment(false, frameOf probe, expected probe))

let private compareAll (seed: uint64) (count: int) (kernel: SoftwareGso.Kernel) =
    let withUdp = takesUdp kernel

    let verdicts =
        sample seed count
        |> Array.map (fun shape ->
            let shape =
                { shape with
                    IsUdp = shape.IsUdp && withUdp }

            shape, judge kernel shape)

    withUdp, verdicts

let private superpackets (seed: uint64) (count: int) =
    testCase $"{count} random superpackets leave as the kernel segments them"
    <| fun () ->
        let withUdp, verdicts =
            SoftwareGso.run (compareAll seed count) |> orSkip "kernel oracle"

        let segments =
            verdicts
            |> Array.sumBy (function
                | _, Same segments -> segments
                | _ -> 0)

        let mismatches =
            verdicts
            |> Array.filter (function
                | _, Differs _ -> true
                | _ -> false)

        let kinds =
            if withUdp then
                "TCP and UDP"
            else
                "TCP only: this kernel has no USO"

        printfn
            $"kernel oracle: {count} superpackets ({kinds}), {segments} segments compared, {mismatches.Length} mismatches"

        match Array.tryHead mismatches with
        | Some(shape, Differs(index, ours, kernels)) ->
            failtest
                $"{mismatches.Length} mismatches; first: %A{shape}\nsegment {index}\nours   {ours}\nkernel {kernels}"
        | _ -> ()

let private completed (kernel: SoftwareGso.Kernel) (shape: Shape) : bool =
    let superpacket = superpacketOf shape

    let vnet =
        { superpacket.Vnet with
            GsoType = 0uy
            GsoSize = 0us }

    let ours = Array.copy superpacket.Packet

    if not (Segment.completeChecksum (&vnet, Span ours)) then
        failwith $"not completed: %A{shape}"

    let at = NaiveSegmenter.checksumAt superpacket.Known

    // The kernel completes with ffff in place of 0 for every protocol; TCP's 0 is the same number (RFC 1071 §1).
    if not shape.IsUdp && word ours at = 0 then
        (ByteSum.word 0xFFFF).CopyTo(ours, at)

    kernel.Segment(shape.IsV6, frameOf { superpacket with Vnet = vnet }, 1) = Ok [ ours ]

let private singles (seed: uint64) (count: int) =
    testCase $"{count} random single packets get the checksum that the kernel completes"
    <| fun () ->
        let shapes =
            sample seed count
            |> Array.map (fun shape ->
                { shape with
                    PayloadLength = min shape.PayloadLength 8000 })

        let wrong =
            SoftwareGso.run (fun kernel -> shapes |> Array.filter (completed kernel >> not))
            |> orSkip "kernel oracle"

        Expect.isEmpty wrong "shapes that differ"

/// `count`: superpackets to compare. Grows freely: 2 500 take seconds.
let laws (seed: uint64) (count: int) =
    testList "Kernel oracle" [ superpackets seed count; singles (seed + 1UL) (count / 5) ]
