/// The coalescer against the running kernel's GRO: it never merges more. Needs root and /dev/net/tun.
module Lightway.Specs.CoalescingOracle

open Expecto
open Lightway.Specs.Generators
open Lightway.Specs.Packets
open Lightway.Specs.CoalescingCases
open Lightway.Specs.Oracles
open Lightway.Specs.Oracles.KernelGro
open Lightway.Specs.Oracles.GroGroups

/// The batch as our coalescer would have it written.
let private ours (packets: byte[] list) : Group list =
    [ for merged in Coalesced.coalesce packets ->
          { Members = merged.Members
            Frame = frame merged.Bytes } ]

let private covers (groups: Group list) (members: int list) : bool =
    groups |> List.exists (fun group -> Set.isSubset (set members) (set group.Members))

/// From good to bad.
type private Verdict =
    /// The same packets in the same groups.
    | Same
    /// We merge less.
    | Stricter
    /// We merge atomic datagrams whatever their identifications are, as those mean nothing (RFC 6864 §4.1).
    | AtomicIds
    /// We merge what the kernel does not.
    | Looser

/// Results of two parties for one batch.
type private Comparison =
    {
        Kernels: Group list
        Ours: Group list
        Verdict: Verdict
        /// Superpackets of the same packets: ours and the kernel's.
        Twins: (Frame * Frame) list
    }

/// The packets, but for the identifications of a run of IPv4 datagrams with DF: those count up. A wrong header checksum
/// stays wrong.
let private countedUp (members: int list) (packets: byte[] list) : byte[] list =
    packets
    |> List.mapi (fun index packet ->
        match List.tryFindIndex ((=) index) members with
        | Some place when packet[0] >>> 4 = 4uy && packet[6] &&& 0x40uy <> 0uy && ByteSum.verifies packet[..19] ->
            let packet = Array.copy packet
            (ByteSum.word (word packets[members.Head] 4 + place)).CopyTo(packet, 4)
            (ByteSum.word 0).CopyTo(packet, 10)
            (ByteSum.word (int (ByteSum.checksum packet[..19]))).CopyTo(packet, 10)
            packet
        | _ -> packet)

let private merged (kernel: Kernel) (packets: byte[] list) : Group list =
    GroGroups.find packets (kernel.Merge packets)

let private twin (groups: Group list) (members: int list) : Frame option =
    groups |> List.tryFind (fun group -> group.Members = members) |> Option.map _.Frame

/// A run of ours, and the kernel's frame for the same packets if it made one. Where the kernel did not merge them, it
/// may have been elsewhere in its own runs (we had refused an earlier packet that it took): it gets the batch once more
/// from this run's first packet on. It must merge the run now, or do so once the identifications of atomic datagrams
/// count up. On a busy machine it may look at a batch in two goes, and never merges across: what it did not merge it gets
/// up to three times.
let private judgeRun (kernel: Kernel) (packets: byte[] list) (all: Group list) (run: Group) : Verdict * Frame option =
    if covers all run.Members then
        Stricter, twin all run.Members
    else
        let rest = packets[run.Members.Head ..]
        let members = run.Members |> List.map (fun index -> index - run.Members.Head)

        let rec attempt (left: int) =
            let again = merged kernel rest

            if covers again members then
                Stricter, twin again members
            else
                let counted = merged kernel (countedUp members rest)

                if covers counted members then
                    AtomicIds, twin counted members
                elif left > 1 then
                    attempt (left - 1)
                else
                    Looser, None

        attempt 3

let private compare (kernel: Kernel) (packets: byte[] list) : Comparison =
    let all = merged kernel packets
    let ours = ours packets
    let runs = ours |> List.filter (fun group -> group.Members.Length > 1)
    let judged = runs |> List.map (judgeRun kernel packets all)

    let groups =
        List.filter (fun group -> group.Members.Length > 1) >> List.map _.Members >> set

    { Kernels = all
      Ours = ours
      Verdict =
        if groups all = groups ours then
            Same
        else
            Stricter :: List.map fst judged |> List.max
      Twins =
        [ for run, (_, frame) in List.zip runs judged do
              match frame with
              | Some frame -> run.Frame, frame
              | None -> () ] }

/// Packets in each group, in the order of the groups' first packets; the kernel's may lack some that it dropped.
let private sizes (groups: Group list) : string =
    groups |> List.map (fun group -> string group.Members.Length) |> String.concat " "

let private describe (verdict: Verdict) : string =
    match verdict with
    | Same -> "same"
    | Stricter -> "stricter"
    | AtomicIds -> "exception (RFC 6864 §4.1)"
    | Looser -> "LOOSER"

let private tally (outcomes: Comparison list) : string =
    let count verdict =
        outcomes |> List.filter (fun outcome -> outcome.Verdict = verdict) |> List.length

    let merged = outcomes |> List.sumBy _.Twins.Length

    $"{count Same} same, {count Stricter} stricter, {count AtomicIds} exceptions (RFC 6864 §4.1), {count Looser} looser; \
      {merged} superpackets compared"

/// One line for kinds of flows with the same outcome.
let private table (outcomes: (Case * Comparison) list) : string =
    outcomes
    |> List.groupBy (fun (case, outcome) ->
        $"C-{case.Rule}", case.Name, sizes outcome.Kernels, sizes outcome.Ours, describe outcome.Verdict)
    |> List.map (fun ((rule, name, kernels, ours, verdict), same) ->
        let kinds = same |> List.map (fun (case, _) -> case.Kind) |> String.concat ", "
        $"%-5s{rule}%-45s{name} %-40s{kinds} %-17s{kernels} %-17s{ours} {verdict}")
    |> String.concat "\n"

let private check (name: string) (outcome: Comparison) : unit =
    if outcome.Verdict = Looser then
        failtest $"{name}: the kernel merges {sizes outcome.Kernels}, we merge {sizes outcome.Ours}"

    for ours, kernels in outcome.Twins do
        Expect.equal ours kernels $"{name}: superpackets of the same packets"

/// The kernel holds no more than 8 packets of a bucket (MAX_GRO_SKBS in net/core/gro.c), whose flows it chooses by a
/// hash: with more flows it may have to let one go.
let private fits (case: Case) : bool =
    (List.distinctBy flowOf case.Packets).Length <= 8

let private cases =
    testCase "no named batch is merged further than by the kernel, and superpackets are the kernel's byte for byte"
    <| fun () ->
        let outcomes =
            KernelGro.run (fun kernel ->
                [ for case in List.filter fits CoalescingCases.all ->
                      case, compare kernel (List.map bytesOf case.Packets) ])
            |> KernelOracle.orSkip "coalescing oracle"

        printfn
            $"coalescing oracle: rule, case, flows, packets in each of the kernel's groups, in ours, verdict\n{table outcomes}"

        printfn $"coalescing oracle: {outcomes.Length} cases: {tally (List.map snd outcomes)}"

        for case, outcome in outcomes do
            check case.Title outcome

/// Leaves out packet by packet while we still merge more than the kernel.
let rec private shrunk (kernel: Kernel) (packets: Packet list) : Packet list =
    packets
    |> Seq.mapi (fun index _ -> List.removeAt index packets)
    |> Seq.tryFind (fun fewer -> (compare kernel (List.map bytesOf fewer)).Verdict = Looser)
    |> function
        | Some fewer -> shrunk kernel fewer
        | None -> packets

let private kinds =
    [ "TCP/IPv4", 1uy, 4uy; "TCP/IPv6", 4uy, 6uy; "UDP/IPv4", 5uy, 4uy; "UDP/IPv6", 5uy, 6uy ]

let private batches (seed: uint64) (count: int) =
    testCase $"{count} random batches are merged no further than by the kernel, and into the kernel's superpackets"
    <| fun () ->
        let random = System.Random(int (seed &&& 0x7FFFFFFFUL))
        let seeds = List.init count (fun _ -> random.Next())

        let judge (kernel: Kernel) (seed: int) =
            let packets = Traffic.batch 3 40 seed
            let outcome = compare kernel (List.map bytesOf packets)

            if outcome.Verdict = Looser then
                failtest
                    $"batch {seed}: we merge more than the kernel, with no more than these: %A{shrunk kernel packets}"

            check $"batch {seed}" outcome
            packets.Length, outcome

        let judged =
            KernelGro.run (fun kernel -> List.map (judge kernel) seeds)
            |> KernelOracle.orSkip "coalescing oracle"

        let outcomes = List.map snd judged
        printfn $"coalescing oracle: {count} batches of {List.sumBy fst judged} packets: {tally outcomes}"

        for kind, gsoType, version in kinds do
            let isOf (frame: Frame, _) =
                frame.GsoType = gsoType && frame.Packet[0] >>> 4 = version

            Expect.isTrue
                (outcomes |> List.exists (fun outcome -> List.exists isOf outcome.Twins))
                $"no superpacket of {kind}"

/// `count`: random batches. 400 take 15 seconds.
let laws (seed: uint64) (count: int) =
    testList "Coalescing oracle" [ cases; batches seed count ]
