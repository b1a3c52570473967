namespace Lightway.Segmenter

open System
open System.Text.RegularExpressions

/// A part of offload that a fault of the kernel can concern.
type OffloadPart =
    /// TCP superpackets that are written to the TUN.
    | TunTcp = 0
    /// UDP superpackets that are written to the TUN.
    | TunUdp = 1
    /// Runs of datagrams that are sent by `UDP_SEGMENT`.
    | UdpSegments = 2

/// A fault of released kernels. Ranges are half open: the first version that has it, the first that has it no more. Versions
/// are `major, minor, patch`, as 6.8.5.
type KernelFault =
    {
        Ranges: ((int * int * int) * (int * int * int)) list
        Parts: OffloadPart list
        Effect: string
        Remedy: string
        /// The commits by their titles. The comment above a row says where its versions are from.
        Source: string
    }

/// Kernels whose offloads lose or damage packets, or refuse them, in ways that a probe at start cannot show. Pure; nothing raises.
/// Laws: a fault is named exactly from the first version that has it to the last one, and only if a part that it concerns
/// is in use; a text that names no version has no faults.
[<RequireQualifiedAccess>]
module KnownKernels =
    /// The faults, newest first.
    let table: KernelFault list =
        [
          // b10b446ce7ad is in 7.0-rc1. Its repairs, 78effd896eee "udp: Fix UDP length on last GSO_PARTIAL segment" and
          // 5f17ae0f595a "udp: gso: Fix handling checksum in __udp_gso_segment", are in 7.1-rc5 and in the announcement of
          // 7.0.11 (2026-06-01). Tailscale's issue 19777 says 7.1.5 for 7.1-rc5.
          { Ranges = [ (7, 0, 0), (7, 0, 11) ]
            Parts = [ OffloadPart.UdpSegments ]
            Effect =
              "network cards that segment UDP themselves may send datagrams with damaged headers, which the peer drops"
            Remedy = "update the kernel, set disable_udp_gso: true, or run: ethtool -K DEVICE tx-udp-segmentation off"
            Source = "\"udp: gso: Use single MSS length in UDP header for GSO_PARTIAL\", Linux 7.0" }
          // e269d79c7d35 (CVE-2024-43817) is in the announcements of 5.15.165, 6.1.103, 6.6.44 and 6.10.3; its repair 89add40066f9
          // (CVE-2024-43897) in those of 6.1.107, 6.6.46 and 6.10.5, and in the review of 5.15.167. In 6.11 both came before -rc3.
          { Ranges =
              [ (5, 15, 165), (5, 15, 167)
                (6, 1, 103), (6, 1, 107)
                (6, 6, 44), (6, 6, 46)
                (6, 10, 3), (6, 10, 5) ]
            Parts = [ OffloadPart.TunTcp; OffloadPart.TunUdp ]
            Effect = "the TUN device may refuse superpackets (EINVAL), so that packets are written to it one by one"
            Remedy = "update the kernel"
            Source =
              "\"net: missing check virtio\"; repaired by \"net: drop bad gso csum_start and offset in virtio_net_hdr\"" }
          // 3d010c8031e3 (CVE-2024-35884), in 6.9-rc3, 6.8.5 and 6.6.26. Before 6.2 the TUN takes no UDP superpackets. Tailscale's
          // issue 11026 has a program that fails on 6.8.4 and passes on 6.8.5.
          { Ranges = [ (6, 2, 0), (6, 6, 26); (6, 7, 0), (6, 8, 5) ]
            Parts = [ OffloadPart.TunUdp ]
            Effect =
              "UDP packets from the tunnel are lost if a vxlan or geneve device of this machine receives them as a superpacket"
            Remedy = "update the kernel, or set disable_tun_gro_udp: true if there is such a device"
            Source =
              "repaired by \"udp: do not accept non-tunnel GSO skbs landing in a tunnel\", Linux 6.9, 6.8.5 and 6.6.26" } ]

    let private numbers (found: Match) : (int * int * int) voption =
        let number (group: int) =
            match Int32.TryParse found.Groups[group].Value with
            | true, value -> ValueSome value
            | _ ->
                if found.Groups[group].Success then
                    ValueNone
                else
                    ValueSome 0

        match found.Success, number 1, number 2, number 3 with
        | true, ValueSome major, ValueSome minor, ValueSome patch -> ValueSome(major, minor, patch)
        | _ -> ValueNone

    /// `7.0.2-6-pve`, `6.1`; nothing else may stand in front.
    let private ofRelease (release: string) =
        numbers (Regex.Match(release, @"^\s*(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?"))

    /// The last number of Ubuntu's `Ubuntu 6.8.0-45.45-generic 6.8.12`, and what Debian has in its version,
    /// `#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)`: both count the patches that the release leaves out.
    let private ofDistribution (version: string) (signature: string) =
        match numbers (Regex.Match(signature, @"\s(\d{1,9})\.(\d{1,9})\.(\d{1,9})\s*$")) with
        | ValueNone -> numbers (Regex.Match(version, @"\bDebian (\d{1,9})\.(\d{1,9})\.(\d{1,9})"))
        | known -> known

    /// The version that counts: major, minor, patch.
    let version (release: string) (text: string) (signature: string) : (int * int * int) voption =
        match ofRelease release, ofDistribution text signature with
        | ValueSome(major, minor, 0), ValueSome(major', minor', patch) when major = major' && minor = minor' ->
            ValueSome(major, minor, patch)
        | known, _ -> known

    /// The faults of a version that concern a part in use.
    let faults (inUse: OffloadPart seq) (version: int * int * int) : KernelFault list =
        table
        |> List.filter (fun fault ->
            fault.Ranges |> List.exists (fun (first, repaired) -> first <= version && version < repaired)
            && Seq.exists (fun part -> List.contains part fault.Parts) inUse)

    /// One line per fault, for the operator.
    let warnings (inUse: OffloadPart seq) (release: string) (text: string) (signature: string) : string list =
        match version release text signature with
        | ValueNone -> []
        | ValueSome version ->
            [ for fault in faults inUse version do
                  $"Linux {release.Trim()}: {fault.Effect} ({fault.Source}); {fault.Remedy}, unless the distribution has repaired it" ]
