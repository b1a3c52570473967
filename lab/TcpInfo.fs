namespace Lightway.Lab

open System
open System.Buffers.Binary
open System.Net.Sockets

/// What the kernel reports about one TCP connection: TCP_INFO (linux/tcp.h, struct tcp_info; fields in host byte order).
type TcpInfo =
    {
        /// Both ends agreed on ECN (TCPI_OPT_ECN).
        HasEcn: bool
        /// Segments that were sent again (tcpi_total_retrans).
        Retransmits: int64
        /// Of those, the ones that had arrived before, as the receiver said (tcpi_dsack_dups): sent again because an
        /// acknowledgement was late, not because something was lost.
        Needless: int64
        /// Segments whose acknowledgement echoed a mark (tcpi_delivered_ce).
        Marked: int64
        /// Segments that may be on the way (tcpi_snd_cwnd).
        Window: int64
    }

    /// Raises SocketException.
    static member Of(socket: Socket) : TcpInfo =
        let info: byte[] = Array.zeroCreate 256
        socket.GetRawSocketOption(6, 11, Span info) |> ignore // IPPROTO_TCP, TCP_INFO

        let word (at: int) =
            int64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(info, at, 4)))

        { HasEcn = info[5] &&& 8uy <> 0uy
          Retransmits = word 100
          Needless = word 216
          Marked = word 196
          Window = word 80 }
