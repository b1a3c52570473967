using System.Runtime.CompilerServices;
using System.Text;
using Lightway.Segmenter;

namespace Lightway.Tunnel.Metrics;

/// <summary>What a worker counts. Names in metrics are these in snake case; the reference server's where it has one.</summary>
public enum Counter
{
    // Inside: the TUN.
    TunReads, // system calls, also those that said EAGAIN
    TunPacketsRead,
    MailboxReads, // no system calls
    TunForwarded, // frames read for another worker's connection
    TunReadBytes, // IP bytes, without virtio_net_hdr
    SuperpacketsRead,
    SegmentsBuilt,
    TunWrites, // system calls
    TunPacketsWritten,
    TunSuperpacketsWritten,
    TunSegmentsWritten, // packets in those
    TunSuperpacketsRefused, // their packets were written one by one
    TunGroFallbacks, // superpackets turned off for a protocol, for a while
    TunReordered, // receives whose packets were put back in order
    TunWriteBytes,
    TunToClient, // bytes of inside packets accepted for the peer
    TunFromClient, // bytes of inside packets delivered

    // Outside: the socket.
    UdpSends, // system calls
    UdpBatchSends, // of them, those of the inside to outside path
    UdpGsoSends, // runs of more than one datagram; a system call takes several
    UdpGsoSegments, // datagrams in those
    UdpGsoFallbacks, // segmentation turned off for an address family
    UdpGsoTooBig, // runs whose segments exceed the path: sent one by one
    UdpSendBlocked,
    UdpDatagramsSent,
    UdpBytesSent,
    UdpReceives, // system calls, also those that said EAGAIN
    UdpGroReceives, // buffers that held more than one datagram
    UdpGroSegments, // datagrams in those
    UdpReceiveOverflows, // datagrams that the kernel dropped: the socket's buffer was full (SO_RXQ_OVFL)
    UdpDatagramsReceived,
    UdpBytesReceived,
    EpollWaits,

    // Connections.
    ConnCreated,
    ConnLinkUp,
    ConnOnline,
    ConnClosed,
    ConnClientClosed,
    ConnStaleClosed,
    ConnAgedOut,
    ConnRejectedNoFreeIp,
    ConnRejectedAccessDenied,
    ConnTlsError,
    ConnTimedOut,
    KeyUpdateStart,
    KeyUpdateComplete,
    KeyUpdateAbandoned, // not answered in time; asked for again after an interval
    UdpConnRecoveredViaSession,
    UdpSessionRotationBegin,
    UdpSessionRotationFinalized,
    UdpSessionRotationAttemptedViaReplay,
    UdpRejectedSession,
    SessionIdMismatch,
    ExpresslanePacketsSent,
    ExpresslanePacketsReceived,
    DtlsPacketsSent,
    DtlsPacketsReceived,
    HandshakeCookiesSent,
    GsoNoneChecksumSkipped,

    // Drops: something arrived and went nowhere.
    UdpParseWireFailed,
    UdpBadPacketVersion,
    UdpRecvTruncated,
    UdpRecvFailed,
    UdpSendFailed,
    UdpSendTooBig,
    UdpControlSendFailed,
    UdpRejectsSuppressed,
    UdpWrongVersionForConn,
    UdpDataAfterDisconnect,
    HandshakeIgnored,
    AuthIgnoredBusy,
    ExpresslaneEncryptNoKey,
    ExpresslaneDecryptNoKey,
    ExpresslaneDecryptFailed,
    ExpresslaneReplayed,
    ExpresslaneTruncated,
    FrameUndecodable,
    FrameIncomplete,
    FrameInvalidState,
    FragmentInvalid,
    TunReadFailed,
    TunForwardDropped, // another worker's mailbox was full
    InsideIoSendFailed,
    TunRejectedPacketInvalidState,
    TunRejectedPacketInvalidInsidePacket,
    TunRejectedPacketTooBig,
    TunRejectedPacketNoConnection,
    TunRejectedPacketNoClientIp,
    TunRejectedPacketTlsError,
}

/// <summary>
/// One worker's counters. One thread adds; any thread reads (a value may be a moment old). The segmenter's drop reasons
/// follow the named counters.
/// </summary>
public sealed class Counters
{
    private const Counter FirstDrop = Counter.UdpParseWireFailed;
    private static readonly int s_named = Enum.GetValues<Counter>().Length;
    private static readonly string[] s_names = BuildNames();
    private readonly long[] _values = new long[s_named + DropReasonModule.count];

    public void Add(Counter counter) => _values[(int)counter]++;

    public void Add(Counter counter, long amount) => _values[(int)counter] += amount;

    /// <summary>Counts a superpacket that the segmenter refused.</summary>
    public void Add(DropReason reason) => _values[s_named + (int)reason]++;

    public long this[Counter counter] => Volatile.Read(ref _values[(int)counter]);

    /// <summary>Name and value of every counter of <paramref name="workers"/>, summed, and totals derived from them.</summary>
    public static IReadOnlyList<KeyValuePair<string, long>> Sum(IEnumerable<Counters> workers)
    {
        var sums = new long[s_names.Length];
        foreach (var worker in workers)
        {
            for (var i = 0; i < sums.Length; i++)
            {
                sums[i] += Volatile.Read(ref worker._values[i]);
            }
        }
        long Of(Counter counter) => sums[(int)counter];
        var insideToOutside = Of(Counter.TunReads) + Of(Counter.UdpBatchSends);
        var rest =
            Of(Counter.UdpSends)
            - Of(Counter.UdpBatchSends)
            + Of(Counter.UdpReceives)
            + Of(Counter.TunWrites)
            + Of(Counter.EpollWaits);
        return
        [
            .. s_names.Select((name, i) => KeyValuePair.Create(name, sums[i])).Where(pair => pair.Key.Length > 0),
            KeyValuePair.Create("syscalls_inside_to_outside", insideToOutside),
            KeyValuePair.Create("syscalls_total", insideToOutside + rest),
            KeyValuePair.Create("drops_total", sums[(int)FirstDrop..].Sum()),
        ];
    }

    private static string[] BuildNames() =>
        [
            .. Enum.GetNames<Counter>().Select(SnakeCase),
            .. Enumerable.Range(0, DropReasonModule.count).Select(i => DropReasonModule.counterName((DropReason)i)),
        ];

    private static string SnakeCase(string name)
    {
        var text = new StringBuilder();
        foreach (var letter in name)
        {
            if (char.IsUpper(letter) && text.Length > 0)
            {
                text.Append('_');
            }
            text.Append(char.ToLowerInvariant(letter));
        }
        return text.ToString();
    }
}
