namespace Lightway.Segmenter

open System

/// State of a run that the next packet is compared with.
[<Struct; NoEquality; NoComparison>]
type private OpenRun =
    {
        mutable First: int
        mutable Last: int
        mutable Count: int
        mutable HeaderLength: int
        /// Payload bytes of every packet but the last.
        mutable GsoSize: int
        mutable PayloadLength: int
        mutable IsV4: bool
        mutable IsTcp: bool
        /// The last packet was a short one, or had PSH or FIN: nothing may follow.
        mutable Closed: bool
        mutable ClosingFlags: byte
        mutable Identification: uint16
        mutable Sequence: uint32
    }

/// Sorts the packets of one receive batch into runs, each of which one superpacket replaces. It holds indices and
/// headers, never payload: the caller gathers the payloads when it writes a run. State is bounded by `maxPackets`;
/// nothing is allocated after construction. One thread, the worker's.
/// Laws: every packet added is in exactly one run; runs in the order of `Run` keep the order of every flow; cutting a
/// run's superpacket (`Segment`) gives back its packets, but for the identification of atomic datagrams (RFC 6864
/// §4.1).
[<Sealed; AllowNullLiteral>]
type Coalescer(maxPackets: int) =
    /// Flows that are distinguished at a time; a further one evicts another, whose run ends.
    static let slotCount = 256

    /// Length of a flow's probe sequence, in slots.
    static let probeCount = 8

    let runs: OpenRun[] = Array.zeroCreate maxPackets
    let next: int[] = Array.zeroCreate maxPackets // by packet index: the next packet of its run, or -1
    let headers: byte[] = Array.zeroCreate (maxPackets * Coalesce.MaxHeaderLength) // by run: its masked header
    let slots: int[] = Array.zeroCreate slotCount // by flow hash: 1 + the newest run of that flow, or 0
    let mutable count = 0

    let masked (run: int, length: int) =
        ReadOnlySpan<byte>(headers, run * Coalesce.MaxHeaderLength, length)

    let pass (index: int, length: int) =
        let run = &runs[count]
        run.First <- index
        run.Last <- index
        run.Count <- 1
        run.HeaderLength <- 0
        run.PayloadLength <- length
        run.Closed <- true
        count <- count + 1

    /// Makes the packet, whose masked header is already in place, the first of a new run.
    let start (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>, index: int) =
        let run = &runs[count]
        let flags = Coalesce.closingFlags (&candidate, packet)
        run.First <- index
        run.Last <- index
        run.Count <- 1
        run.HeaderLength <- candidate.HeaderLength
        run.GsoSize <- candidate.PayloadLength
        run.PayloadLength <- candidate.PayloadLength
        run.IsV4 <- candidate.IsV4
        run.IsTcp <- candidate.IsTcp
        run.Closed <- flags <> 0uy
        run.ClosingFlags <- flags
        run.Identification <- Coalesce.identification (&candidate, packet)
        run.Sequence <- Coalesce.sequence (&candidate, packet)
        count <- count + 1

    /// The packet continues `run`, and the superpacket stays within its limits.
    let continues (run: inref<OpenRun>, candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) =
        not run.Closed
        && candidate.HeaderLength = run.HeaderLength
        && candidate.PayloadLength <= run.GsoSize
        && Coalesce.fits (run.HeaderLength, run.PayloadLength, candidate.PayloadLength)
        && (if candidate.IsTcp then
                Coalesce.sequence (&candidate, packet) = Coalesce.nextSequence (run.Sequence, run.PayloadLength)
            else
                run.Count < Coalesce.MaxUdpSegments)
        && (not (Coalesce.identificationMatters (&candidate, packet))
            || Coalesce.identification (&candidate, packet) =
                Coalesce.nextIdentification (run.Identification, run.Count))

    let append (run: byref<OpenRun>, candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>, index: int) =
        let flags = Coalesce.closingFlags (&candidate, packet)
        next[run.Last] <- index
        run.Last <- index
        run.Count <- run.Count + 1
        run.PayloadLength <- run.PayloadLength + candidate.PayloadLength
        run.Closed <- flags <> 0uy || candidate.PayloadLength < run.GsoSize
        run.ClosingFlags <- flags

    /// The flow's slot, else the first free slot of its probe sequence, else its home slot, whose flow is evicted.
    /// Slots are never freed within a batch, so a flow has one slot at most.
    let slotOf (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : int =
        let home = int (Coalesce.flowHash (&candidate, packet) >>> 24) // the 8 highest bits: 0 to slotCount - 1
        let mutable found = -1
        let mutable probe = 0

        while found < 0 && probe < probeCount do
            let at = (home + probe) &&& (slotCount - 1)
            let run = slots[at] - 1

            if run < 0 || Coalesce.sameFlow (&candidate, packet, masked (run, Coalesce.MaxHeaderLength)) then
                found <- at

            probe <- probe + 1

        if found < 0 then home else found

    let merge (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>, index: int) =
        Coalesce.mask (
            &candidate,
            packet,
            Span<byte>(headers, count * Coalesce.MaxHeaderLength, candidate.HeaderLength)
        )

        let slot = &slots[slotOf (&candidate, packet)]

        if
            slot > 0
            && continues (&runs[slot - 1], &candidate, packet)
            && masked(count, candidate.HeaderLength).SequenceEqual(masked (slot - 1, candidate.HeaderLength))
        then
            append (&runs[slot - 1], &candidate, packet, index)
        else
            start (&candidate, packet, index)
            slot <- count

    /// Ends the run of this packet's flow: packets that follow do not join it.
    let endFlow (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) =
        let slot = slots[slotOf (&candidate, packet)]

        if slot > 0 && Coalesce.sameFlow (&candidate, packet, masked (slot - 1, Coalesce.MaxHeaderLength)) then
            runs[slot - 1].Closed <- true

    /// Ends the runs of this packet's source: packets that follow join none of them.
    let endSource (packet: ReadOnlySpan<byte>) =
        for slot in slots do
            let isItsOwn =
                slot > 0 && Coalesce.sameSource (packet, masked (slot - 1, Coalesce.MaxHeaderLength))

            if isItsOwn then
                runs[slot - 1].Closed <- true

    /// Merges TCP segments; if false, each passes unchanged.
    member val MergeTcp = true with get, set

    /// Merges UDP datagrams; if false, each passes unchanged.
    member val MergeUdp = true with get, set

    /// Number of runs since the last reset.
    member _.Count: int = count

    /// Forgets everything: the batch was written.
    member _.Reset() : unit =
        Array.Clear slots
        count <- 0

    /// Takes the batch's next packet, in the order in which packets are to be written. Precondition: `index` is below
    /// `maxPackets` and was not added since the last reset. `packet` is not kept.
    member this.Add(packet: ReadOnlySpan<byte>, index: int) : unit =
        let candidate = Coalesce.classify packet
        next[index] <- -1

        match candidate.Class with
        | CoalesceClass.Mergeable when (if candidate.IsTcp then this.MergeTcp else this.MergeUdp) ->
            merge (&candidate, packet, index)
        | CoalesceClass.Mergeable
        | CoalesceClass.Alone ->
            endFlow (&candidate, packet)
            pass (index, packet.Length)
        | CoalesceClass.Barrier ->
            if Coalesce.isOfAnySource packet then
                Array.Clear slots
            else
                endSource packet

            pass (index, packet.Length)
        | _ -> pass (index, packet.Length)

    /// Runs are numbered in the order in which they are to be written. Precondition: 0 <= run < Count.
    member _.Run(run: int) : CoalescedRun =
        let it = &runs[run]

        { First = it.First
          Count = it.Count
          HeaderLength = it.HeaderLength
          PacketLength = it.HeaderLength + it.PayloadLength
          IsTcp = it.IsTcp }

    /// Index of the packet after this one in its run, or -1.
    member _.Next(index: int) : int = next[index]

    /// Writes the virtio_net_hdr (10 bytes) and the header of the superpacket that replaces a run of two or more; the
    /// payloads follow it. Returns the bytes written, at most 10 + Coalesce.MaxHeaderLength. The packets are not
    /// changed, so they can still be written one by one if the kernel refuses the superpacket.
    member _.WriteHeader(run: int, dst: Span<byte>) : int =
        let it = &runs[run]

        Coalesce.writeHeader (
            masked (run, it.HeaderLength),
            it.IsV4,
            it.IsTcp,
            it.Identification,
            it.Sequence,
            it.ClosingFlags,
            it.GsoSize,
            it.PayloadLength,
            dst
        )
