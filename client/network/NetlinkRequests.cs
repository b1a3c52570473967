namespace Lightway.Client.Network;

/// <summary>Questions to the kernel over a netlink socket, and their answers. One thread.</summary>
internal sealed class NetlinkRequests : IDisposable
{
    private readonly Netlink _netlink = new(groups: 0);
    private readonly byte[] _request = new byte[NetlinkFormat.MaxSize];
    private readonly byte[] _answer = new byte[Netlink.BufferSize];
    private uint _sequence;

    /// <summary>Writes a message with this sequence number into the buffer. Returns its length.</summary>
    public delegate int Writer(Span<byte> buffer, uint sequence);

    /// <summary>Reads the body of a message of this type; false ends the reading.</summary>
    public delegate bool Reader(ushort type, ReadOnlySpan<byte> body);

    /// <summary>Has the kernel change something. Returns its errno; 0: done.</summary>
    /// <exception cref="IOException">The kernel does not answer.</exception>
    public int Change(Writer write) => Ask(write, static (_, _) => true);

    /// <summary>Asks the kernel, and reads what it answers until the reader or the answer ends. Returns the errno, or 0.</summary>
    /// <exception cref="IOException">The kernel does not answer.</exception>
    public int Ask(Writer write, Reader read)
    {
        _netlink.Send(_request.AsSpan(0, write(_request, ++_sequence)));
        while (true)
        {
            ReadOnlySpan<byte> datagram = _answer.AsSpan(0, _netlink.Receive(_answer));
            while (NetlinkFormat.TryTake(ref datagram, _sequence, out var message))
            {
                if (message.Type == NetlinkFormat.NLMSG_ERROR)
                {
                    return NetlinkFormat.ErrorOf(message.Body);
                }
                if (message.Type == NetlinkFormat.NLMSG_DONE || !read(message.Type, message.Body))
                {
                    return 0;
                }
            }
        }
    }

    public void Dispose() => _netlink.Dispose();
}
