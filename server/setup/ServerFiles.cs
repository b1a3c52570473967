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
        FileChecks.Require("user_db", options.UserDb, FileRule.OwnerOnly);
    }
}
