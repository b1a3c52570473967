using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Observe;

/// <summary>Counters that the reference server has and that are counted under other names here, or not at all.</summary>
internal static class ReferenceNames
{
    private const string Never = "Always 0 here: ";
    private static readonly string[] s_versions = ["1.1", "1.2", "1.3"];

    /// <summary>A counter with one label.</summary>
    public sealed record Entry(string Name, string Help, string Label, string Value, Func<long> Read);

    public static IEnumerable<(string Name, string Help, Func<long> Read)> Of(ServerView view)
    {
        yield return ("conn_accept_failed", "As tcp_accept_failed_total.", () => view[Counter.TcpAcceptFailed]);
        yield return (
            "connection_accept_proxy_header_failed",
            "Connections whose PROXY header was wrong, cut or late.",
            () => view[Counter.ProxyHeaderWrong] + view[Counter.ProxyHeaderCut] + view[Counter.ProxyHeaderLate]
        );
        yield return (
            "conn_data_after_disconnect",
            "As udp_data_after_disconnect_total.",
            () => view[Counter.UdpDataAfterDisconnect]
        );
        yield return ("udp_no_header", Never + "part of udp_parse_wire_failed_total.", () => 0);
        yield return ("udp_recv_invalid_addr", Never + "the kernel gives each datagram an address.", () => 0);
        yield return ("udp_recv_missing_pktinfo", Never + "a datagram without it is answered all the same.", () => 0);
        yield return (
            "udp_send_batch_dropped",
            "Datagrams that the kernel refused.",
            () => view[Counter.UdpSendFailed] + view[Counter.UdpSendTooBig]
        );
        yield return ("udp_send_batch_blocked", "As udp_send_blocked_total.", () => view[Counter.UdpSendBlocked]);
        yield return ("udp_send_batch_missed_flush", Never + "each turn of a worker ends with a flush.", () => 0);
        yield return ("expresslane_offload_tx_bytes", Never + "the kernel carries no Expresslane.", () => 0);
        yield return ("expresslane_offload_rx_bytes", Never + "the kernel carries no Expresslane.", () => 0);
        yield return ("tun_iouring_rx_err", Never + "io_uring is not used.", () => 0);
        foreach (
            var kind in new[]
            {
                "received_encoding_req_no_authorization",
                "received_encoding_req_non_online",
                "received_encoding_req_with_tcp",
                "received_encoding_res_as_server",
            }
        )
        {
            yield return (kind, Never + "this server has no codec and ignores such requests.", () => 0);
        }
        yield return (
            "gso_send_failed",
            "Runs that the kernel refused to cut; their datagrams were sent one by one.",
            () => view[Counter.UdpGsoFallbacks] + view[Counter.UdpGsoPeerFallbacks] + view[Counter.UdpGsoTooBig]
        );
        yield return ("gso_batch_skipped", Never + "segments of all superpackets are sent in runs.", () => 0);
    }

    public static IEnumerable<Entry> Labelled(ServerView view)
    {
        foreach (var version in s_versions)
        {
            const string help = Never + "a connection that cannot be created is none.";
            yield return new("conn_create_failed", help, "lightway_protocol_version", version, () => 0);
        }
        const string rejected = "Packets from the TUN that DTLS or TLS refused.";
        const string other = "tun_rejected_packet_invalid_other";
        yield return new(other, rejected, "fatal", "false", () => view[Counter.TunRejectedPacketTlsError]);
        yield return new(other, rejected, "fatal", "true", () => 0);
        const string data = "Packets that came in DTLS or TLS records.";
        yield return new(
            "tls_appdata",
            data,
            "tls_protocol_version",
            "DTLSv1.3",
            () => view[Counter.DtlsPacketsReceived]
        );
        yield return new(
            "tls_appdata",
            data,
            "tls_protocol_version",
            "TLSv1.3",
            () => view[Counter.TlsPacketsReceived]
        );
        yield return new(
            "gso_build_segment_failed",
            Never + "a superpacket that was accepted can be cut.",
            "reason",
            "any",
            () => 0
        );
    }
}
