namespace Lightway.Tunnel.Metrics;

/// <summary>The events that a worker counts. Metrics have these names in snake case, the reference server's where it has one.</summary>
public enum Counter
{
    // Inside: the TUN.
    TunReads, // system calls, those that returned EAGAIN included
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
    UdpGsoPeerFallbacks, // turned off for a peer
    UdpGsoTooBig, // runs whose segments exceed the path: sent one by one
    UdpSendBlocked,
    UdpDatagramsSent,
    UdpBytesSent,
    UdpReceives, // system calls, those that returned EAGAIN included
    UdpGroReceives, // buffers that held more than one datagram
    UdpGroSegments, // datagrams in those
    UdpReceiveOverflows, // datagrams that the kernel dropped: the socket's buffer was full (SO_RXQ_OVFL)
    UdpDatagramsReceived,
    UdpBytesReceived,
    TcpAccepted, // connections
    TcpSends, // system calls
    TcpSendBlocked, // times that a socket became full
    TcpRecordsSent, // TLS records with frames
    TcpBytesSent,
    TcpReceives, // system calls
    TcpBytesReceived,
    EpollWaits,
    Ticks, // of the worker, one per second
    TickTime, // microseconds that they have taken

    // Connections.
    ConnCreated,
    ConnLinkUp,
    ConnOnline,
    ConnClosed,
    ConnClientClosed,
    ConnStaleClosed,
    ConnAgedOut,
    ConnGaveWay, // not logged in, ended for a newcomer
    ConnReplaced, // ended for another session of its user, or for a user without an address
    ConnUserRemoved, // ended because a reload has removed its user
    UserAuthEviction, // ended because its login has expired
    ConnKicked, // ended by the operator
    ConnRefusedDraining, // new, while the server drains: ended after their handshake
    LogLinesSuppressed, // about peers without a login
    ConnRejectedNoFreeIp,
    ConnRejectedAccessDenied,
    AuthChecks, // logins that were checked, whatever came of it
    AuthTokenChecks, // of them, tokens
    AuthCommandChecks, // of them, by a program of the operator's
    AuthCommandFailed, // of those, it gave no answer
    AuthCommandUnsendable, // of all, refused because its lines can't hold them
    ConnTlsError,
    ConnTimedOut,
    KeyUpdateStart,
    KeyUpdateComplete,
    ConnAllocFragMap, // times that a connection took memory for fragments
    KeyUpdateAbandoned, // not answered in time; asked for again after an interval
    UdpConnRecoveredViaSession,
    UdpMoveNotLogged, // of those, moves that followed another within a minute
    UdpSessionRotationBegin,
    UdpSessionRotationFinalized,
    UdpSessionRotationAttemptedViaReplay,
    UdpRejectedSession,
    SessionIdMismatch,
    ExpresslanePacketsSent,
    ExpresslanePacketsReceived,
    DtlsPacketsSent,
    DtlsPacketsReceived,
    TlsPacketsSent,
    TlsPacketsReceived,
    HandshakeCookiesSent,
    GsoNoneChecksumSkipped,
    MssClamped, // SYNs
    PathMtuProbes, // pings, those of the confirmations included
    PathMtuChanges, // searches that have found another value than the one before
    PathMtuBlackHoles, // what passed before no longer does
    TunPacketsFragmented, // too long for a datagram of their path, sent in several
    FragmentsSent,
    IcmpErrorsSent, // about packets from the TUN, back into it
    IcmpErrorsSuppressed, // their receiver gets enough of them
    EcnChanged, // packets that got a mark from their datagram
    CodecPacketsSent, // encoded
    CodecPacketsReceived, // encoded
    AccountingRecords, // lines written
    AccountingLost, // lines that were not: the disk is full, nobody reads, or too many wait
    EcnUnexpected, // a combination of marks that no router and no correct tunnel makes

    // Drops: something arrived and went nowhere.
    UdpParseWireFailed,
    UdpBadPacketVersion,
    UdpRecvTruncated, // longer than any datagram of the protocol
    UdpSourceInside, // sent from an address of the clients' network: a loop
    UdpGateNoise, // dropped by the kernel for us: not Lightway
    UdpGateOverLimit, // dropped by the kernel for us: of no known session, from a source that sends a flood
    UdpStrangerOverLimit, // of peers without a connection, beyond what their source or all of them may cost
    UdpPeerAboveShare, // not opened: the worker cannot keep up, and this peer has had its share
    UdpMoveBeforeLogin, // of a peer that is not Online
    UdpRecvFailed,
    UdpSendFailed,
    UdpSendTooBig,
    UdpControlSendFailed,
    UdpRejectsSuppressed,
    UdpWrongVersionForConn,
    UdpDataAfterDisconnect,
    TcpStrangerOverLimit, // connections closed at once: their source, or all strangers, have had their share
    TcpSourceInside, // from an address of the clients' network: a loop
    ProxyHeaderWrong,
    ProxyHeaderCut, // the connection ended within it
    ProxyHeaderLate, // not whole within 5 s
    TcpAcceptFailed, // no descriptors or memory
    TcpEnded, // streams that ended without close_notify
    TcpFailed, // sockets that failed: a reset, or a peer that no longer answers
    TcpRecordFlood, // connections ended: one read made the session answer too often
    TcpControlDropped, // control frames for a peer that does not read
    TcpShedTcp, // inside TCP packets for a peer whose socket is full
    TcpShedOther, // other inside packets, beyond those that wait
    HandshakeIgnored,
    AuthIgnoredBusy, // as many logins wait for their check as may
    AuthIgnoredDelay, // too soon after failures
    ExpresslaneEncryptNoKey,
    ExpresslaneDecryptNoKey,
    ExpresslaneDecryptFailed,
    ExpresslaneReplayed,
    ExpresslaneTruncated,
    FrameUndecodable,
    FrameIncomplete,
    FrameInvalidState,
    FragmentInvalid,
    FragmentOverBudget, // the worker holds as many bytes of fragments as it may
    FrameRepeated, // a second frame of a kind that is answered, in one datagram
    TunReadFailed,
    TunForwardDropped, // another worker's mailbox was full
    InsideIoSendFailed,
    TunRejectedPacketInvalidState,
    TunRejectedPacketInvalidInsidePacket,
    TunRejectedPacketTooBig,
    TunRejectedPacketNoConnection,
    TunRejectedPacketToServer, // client: a datagram of its own, on the way back into the tunnel
    TunRejectedPacketNoClientIp,
    TunRejectedPacketTlsError,
    InsidePluginDropped,
    OutsidePluginDropped,
    CodecFailed, // the codec had no use for a packet
    CodecOutputDropped, // emitted while the socket was full, beyond what is kept
    EcnDropped, // marked on the path, and the sender of the packet does not understand marks
}
