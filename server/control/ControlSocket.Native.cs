using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Server.Control;

/// <summary>
/// The Unix socket that the operator's commands come by: a file that only the server's user and root may use. It replaces
/// the socket of a server that has died, and nothing else.
/// </summary>
internal sealed unsafe partial class ControlSocket : IDisposable
{
    private const int Backlog = 64; // connections that wait to be accepted
    private const int OwnerOnly = 0x180; // octal 600
    private const int LockTries = 20;
    private const int LockWaitMs = 100;

    // linux/un.h, asm-generic/fcntl.h, linux/stat.h, asm-generic/errno*.h
    private const int AF_UNIX = 1;
    private const int SOCK_STREAM = 1;
    private const int SOCK_CLOEXEC = 0x80000;
    private const int SocketAddressSize = 110; // struct sockaddr_un: a family of 2 bytes, a path of 108
    private const int O_DIRECTORY_X86 = 0x10000;
    private const int O_DIRECTORY_ARM = 0x4000;
    private const int O_CLOEXEC = 0x80000;
    private const int LOCK_EX = 2;
    private const int LOCK_NB = 4;
    private const int AT_FDCWD = -100;
    private const int AT_SYMLINK_NOFOLLOW = 0x100;
    private const uint STATX_BASIC_STATS = 0x7ff;
    private const int StatxSize = 256;
    private const int ModeAt = 28; // stx_mode, u16
    private const int InodeAt = 32; // stx_ino, u64
    private const int S_IFMT = 0xf000;
    private const int S_IFSOCK = 0xc000;
    private const int ENOENT = 2;

    private readonly string _path;
    private readonly ulong _inode;

    private ControlSocket(string path, int fd, ulong inode)
    {
        _path = path;
        _inode = inode;
        Listener = new Socket(new SafeSocketHandle(fd, ownsHandle: true));
    }

    /// <summary>Listens.</summary>
    public Socket Listener { get; }

    /// <summary>Makes the socket, and its directory if only that is missing.</summary>
    /// <exception cref="ConfigurationException">It can't be made, or something else is there.</exception>
    public static ControlSocket Open(string path)
    {
        var full = Path.GetFullPath(path);
        var directory = Path.GetDirectoryName(full) ?? throw Problem(path, "is a directory");
        MakeDirectory(path, directory);
        // Who looks whether a socket is alive, and who makes one, holds the directory, so that no two servers replace each
        // other's. A server that has only just made its socket would be taken for dead.
        var held = Hold(path, directory);
        try
        {
            RemoveDead(path);
            return Make(path);
        }
        finally
        {
            close(held);
        }
    }

    /// <summary>Closes the socket, and removes its file unless somebody has put another one there.</summary>
    public void Dispose()
    {
        Listener.Dispose();
        if (Of(_path) is { IsSocket: true } file && file.Inode == _inode)
        {
            unlink(Name(_path));
        }
    }

    private static ConfigurationException Problem(string path, string what) =>
        new($"control_socket: \"{path}\" {what}");

    private static ConfigurationException Failure(string path, string call) =>
        Problem(path, $"can't be made: {call}: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");

    /// <summary>The directory itself, which under /run is gone after a reboot. Those above it must be there.</summary>
    private static void MakeDirectory(string path, string directory)
    {
        if (Directory.Exists(directory))
        {
            return;
        }
        if (!Directory.Exists(Path.GetDirectoryName(directory)))
        {
            throw Problem(path, $"can't be made: there is no directory {Path.GetDirectoryName(directory)}");
        }
        try
        {
            const UnixFileMode owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
            const UnixFileMode others =
                UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
            Directory.CreateDirectory(directory, owner | others);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw Problem(
                path,
                $"can't be made: {error.Message}; as root run: install -d -o {Environment.UserName} {directory}"
            );
        }
    }

    private static int Hold(string path, string directory)
    {
        var flag = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? O_DIRECTORY_ARM : O_DIRECTORY_X86;
        var held = open(Name(directory), flag | O_CLOEXEC, 0);
        if (held < 0)
        {
            throw Failure(path, $"open {directory}");
        }
        for (var tries = 1; flock(held, LOCK_EX | LOCK_NB) != 0; tries++)
        {
            if (tries == LockTries)
            {
                close(held);
                throw Problem(path, $"can't be made: another process holds {directory} (flock)");
            }
            Thread.Sleep(LockWaitMs);
        }
        return held;
    }

    private static void RemoveDead(string path)
    {
        if (Of(path) is not { } file)
        {
            return;
        }
        if (!file.IsSocket)
        {
            throw Problem(path, "exists and is not a socket: remove it, or name another path");
        }
        if (IsAlive(path))
        {
            throw Problem(path, "is the socket of a server that runs: stop that one, or name another path");
        }
        if (unlink(Name(path)) != 0)
        {
            throw Failure(path, "unlink");
        }
    }

    /// <summary>False only if the kernel says that nobody listens.</summary>
    private static bool IsAlive(string path)
    {
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        probe.Blocking = false; // a server whose backlog is full answers EAGAIN then, and would make us wait for ever
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException error)
        {
            return error.SocketErrorCode != SocketError.ConnectionRefused;
        }
    }

    private static ControlSocket Make(string path)
    {
        var fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
        {
            throw Failure(path, "socket");
        }
        var isBound = false;
        try
        {
            // The file gets the mode of the socket (net/unix/af_unix.c, unix_bind_bsd), so that it never has another one.
            // Before listen(2) nobody can connect.
            if (fchmod(fd, OwnerOnly) != 0)
            {
                throw Failure(path, "fchmod");
            }
            var address = stackalloc byte[SocketAddressSize];
            new Span<byte>(address, SocketAddressSize).Clear();
            *(ushort*)address = AF_UNIX;
            var length = Encoding.UTF8.GetBytes(path, new Span<byte>(address + 2, SocketAddressSize - 3));
            if (bind(fd, address, (uint)(2 + length + 1)) != 0)
            {
                throw Failure(path, "bind");
            }
            isBound = true;
            if (Of(path) is not { IsSocket: true } file)
            {
                isBound = false;
                throw Problem(path, "was replaced at once");
            }
            FileChecks.Require("control_socket", path, FileRule.OwnerOnly);
            if (listen(fd, Backlog) != 0)
            {
                throw Failure(path, "listen");
            }
            return new ControlSocket(path, fd, file.Inode);
        }
        catch
        {
            close(fd);
            if (isBound)
            {
                unlink(Name(path));
            }
            throw;
        }
    }

    /// <summary>What is at a path, not what a symbolic link there points to; null: nothing.</summary>
    private static FileView? Of(string path)
    {
        var status = stackalloc byte[StatxSize];
        return statx(AT_FDCWD, Name(path), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, status) == 0
                ? new FileView((*(ushort*)(status + ModeAt) & S_IFMT) == S_IFSOCK, *(ulong*)(status + InodeAt))
            : Marshal.GetLastPInvokeError() == ENOENT ? null
            : throw Failure(path, "statx");
    }

    private static byte[] Name(string path) => Encoding.UTF8.GetBytes(path + '\0');

    private readonly record struct FileView(bool IsSocket, ulong Inode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int socket(int domain, int type, int protocol);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int bind(int fd, byte* address, uint length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int listen(int fd, int backlog);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fchmod(int fd, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int open(byte[] path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int flock(int fd, int operation);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int unlink(byte[] path);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int close(int fd);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int statx(int directory, byte[] path, int flags, uint mask, byte* status);
}
