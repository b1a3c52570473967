using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Lightway.Hosting;

/// <summary>What a file is and whose: the part of statx(2) that .NET does not tell.</summary>
/// <param name="Owner">User id.</param>
/// <param name="Group">Group id.</param>
/// <param name="Mode">Type and permissions, as in stat(2).</param>
internal readonly unsafe partial record struct FileStatus(uint Owner, uint Group, ushort Mode)
{
    // linux/stat.h, linux/fcntl.h
    private const int AT_FDCWD = -100;
    private const int AT_SYMLINK_NOFOLLOW = 0x100;
    private const int AT_EACCESS = 0x200;
    private const int AT_EMPTY_PATH = 0x1000;
    private const uint STATX_BASIC_STATS = 0x7ff;
    private const int StatxSize = 256; // struct statx, the same on every processor
    private const int OwnerAt = 20; // stx_uid, u32
    private const int GroupAt = 24; // stx_gid, u32
    private const int ModeAt = 28; // stx_mode, u16
    private const int S_IFMT = 0xf000;
    private const int S_IFDIR = 0x4000;
    private const int S_IFLNK = 0xa000;
    private const int R_OK = 4; // unistd.h
    private const int S_IFREG = 0x8000;
    private const int ENOENT = 2;
    private const int EACCES = 13;
    private const int ENOTDIR = 20;

    public bool IsDirectory => (Mode & S_IFMT) == S_IFDIR;

    public bool IsLink => (Mode & S_IFMT) == S_IFLNK;

    public bool IsFile => (Mode & S_IFMT) == S_IFREG;

    public UnixFileMode Permissions => (UnixFileMode)(Mode & 0xfff);

    /// <summary>User id that this process acts as.</summary>
    public static uint Self => geteuid();

    /// <summary>Group id that this process acts as; groups beside it do not count.</summary>
    public static uint SelfGroup => getegid();

    /// <summary>This process may not read the file, whatever the reason is that its mode does not show.</summary>
    public static bool IsClosed(string path)
    {
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
        {
            return faccessat(AT_FDCWD, name, R_OK, AT_EACCESS) != 0 && Marshal.GetLastPInvokeError() == EACCES;
        }
    }

    /// <summary>Of the file itself; a symbolic link is not followed. Null if there is none.</summary>
    /// <exception cref="IOException">It cannot be told, for example because a directory may not be searched.</exception>
    public static FileStatus? Of(string path)
    {
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
        {
            return Of(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW);
        }
    }

    /// <summary>Of a file that is open.</summary>
    /// <exception cref="IOException">It cannot be told.</exception>
    public static FileStatus Of(SafeFileHandle file)
    {
        byte none = 0;
        return Of((int)file.DangerousGetHandle(), &none, AT_EMPTY_PATH)!.Value;
    }

    private static FileStatus? Of(int directory, byte* name, int flags)
    {
        var status = stackalloc byte[StatxSize];
        var result = statx(directory, name, flags, STATX_BASIC_STATS, status);
        if (result == 0)
        {
            return new FileStatus(*(uint*)(status + OwnerAt), *(uint*)(status + GroupAt), *(ushort*)(status + ModeAt));
        }
        return Marshal.GetLastPInvokeError() is var errno and not (ENOENT or ENOTDIR)
            ? throw new IOException(Marshal.GetPInvokeErrorMessage(errno))
            : null;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int statx(int directory, byte* path, int flags, uint mask, byte* status);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int faccessat(int directory, byte* path, int mode, int flags);

    [LibraryImport("libc")]
    private static partial uint geteuid();

    [LibraryImport("libc")]
    private static partial uint getegid();
}
