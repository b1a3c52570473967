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
        if (_copy.Length < data.Length)
        {
            _copy = new byte[data.Length];
        }
        data.CopyTo(_copy);
        var datagram = _copy.AsSpan(0, data.Length);
        return plugins.Egress(datagram) ? sender.Send(path, datagram, segmentSize: 0, tos) : data.Length;
    }

    /// <summary>Not for control datagrams: <see cref="SendBatch"/> asks the plugins itself.</summary>
    public int Send(ReadOnlySpan<DatagramRun> runs, ReadOnlySpan<byte> bytes) => -Linux.EOPNOTSUPP;
}
