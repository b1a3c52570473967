using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// Asks the outside plugins about control datagrams before they are sent. One that is dropped counts as sent. One thread.
/// </summary>
internal sealed class PluggedSender(IDatagramSender sender, OutsidePlugins plugins) : IDatagramSender
{
    private byte[] _copy = [];

    public int Send(in OutsideAddress path, ReadOnlySpan<byte> data, int segmentSize, byte tos = 0)
    {
        if (segmentSize != 0)
        {
            return -Linux.EOPNOTSUPP; // control datagrams leave one by one
        }
        var datagram = CopyOf(data);
        return plugins.Egress(datagram) ? sender.Send(path, datagram, segmentSize: 0, tos) : data.Length;
    }

    public int SendFragmentable(in OutsideAddress path, ReadOnlySpan<byte> datagram)
    {
        var copy = CopyOf(datagram);
        return plugins.Egress(copy) ? sender.SendFragmentable(path, copy) : datagram.Length;
    }

    /// <summary>Not for control datagrams: <see cref="SendBatch"/> asks the plugins itself.</summary>
    public int Send(ReadOnlySpan<DatagramRun> runs, ReadOnlySpan<byte> bytes) => -Linux.EOPNOTSUPP;

    /// <summary>The plugins may change it.</summary>
    private Span<byte> CopyOf(ReadOnlySpan<byte> datagram)
    {
        if (_copy.Length < datagram.Length)
        {
            _copy = new byte[datagram.Length];
        }
        datagram.CopyTo(_copy);
        return _copy.AsSpan(0, datagram.Length);
    }
}
