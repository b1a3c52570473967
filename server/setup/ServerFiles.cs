using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Server.Setup;

/// <summary>The files a server trusts.</summary>
internal static class ServerFiles
{
    /// <summary>Checks every file that the options name.</summary>
    /// <exception cref="ConfigurationException">A file is missing or open to others.</exception>
    public static void Require(ServerOptions options)
    {
        FileChecks.Require("config_file", options.ConfigFile, FileRule.ReadableByOthers);
        FileChecks.Require("server_cert", options.ServerCert, FileRule.ReadableByOthers);
        FileChecks.Require("server_key", options.ServerKey, FileRule.OwnerOnly);
        if (options.UserDb is { } users)
        {
            FileChecks.Require("user_db", users, FileRule.OwnerOnly);
        }
        if (options.Auth.TokenKeys is { } keys)
        {
            FileChecks.Require("token_rsa_pub_key_pem", keys, FileRule.ReadableByOthers);
        }
        if (options.Auth.AddressMap is { } rules)
        {
            FileChecks.Require("address_map", rules, FileRule.ReadableByOthers);
        }
        if (options.Auth.Command is [var program, ..])
        {
            RequireProgram("auth_command", program);
        }
        if (options.IpMapFile is { } map)
        {
            FileChecks.Require("ip_map", map, FileRule.ReadableByOthers);
        }
    }

    /// <summary>The server gives passwords to it: nobody else may replace it.</summary>
    private static void RequireProgram(string key, string path)
    {
        FileChecks.Require(key, path, FileRule.ReadableByOthers);
        const UnixFileMode execute = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        if (!File.Exists(path))
        {
            throw new ConfigurationException($"{key}: \"{path}\" does not exist or is not a file");
        }
        if ((File.GetUnixFileMode(path) & execute) == 0)
        {
            throw new ConfigurationException($"{key}: \"{path}\" can't be run; run: chmod +x {path}");
        }
    }

    /// <summary>The parts of the pool for local addresses, from the options or from their file.</summary>
    /// <exception cref="ConfigurationException">The file can't be read, or has no such map.</exception>
    public static IReadOnlyList<IpMapEntry> ReadIpMap(ServerOptions options)
    {
        if (options.IpMapFile is not { } file)
        {
            return [.. options.IpMap];
        }
        try
        {
            var (entries, error) = IpMap.parse(file, File.ReadAllText(file));
            error ??= IpMap.problem(options.IpPool, entries) is { } problem ? $"ip_map: \"{file}\": {problem}" : null;
            return error is null ? [.. entries] : throw new ConfigurationException(error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"ip_map: \"{file}\": {error.Message}");
        }
    }
}
