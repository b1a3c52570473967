using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Udp;

/// <summary>Stands for the socket of a worker that serves TCP only: nothing is ever sent by it.</summary>
internal sealed class NoDatagrams : IDatagramSender
{
    public int Send(in OutsideAddress path, ReadOnlySpan<byte> data, int segmentSize, byte tos = 0) =>
        -Linux.EOPNOTSUPP;

    public int Send(ReadOnlySpan<DatagramRun> runs, ReadOnlySpan<byte> bytes) => -Linux.EOPNOTSUPP;
}
