/// A set-up that `lightway-server init` writes, for tests that start from one.
module Lightway.Tests.SetUps

open System.IO
open System.Net
open Expecto
open Lightway.Options
open Lightway.Server.Setup

/// What `init DIRECTORY --address HOST:PORT` asks for.
let options (directory: string) (host: string) (port: int) : InitOptions =
    { Directory = directory
      ServerHost = host
      ServerPort = port
      IsAddressGiven = true
      User = "me"
      ServerName = "server.example.com"
      IpPool = IPNetwork.Parse "10.125.0.0/16"
      Certificate = null
      Key = null
      AcmeWebroot = null
      SetUpHost = false }

/// Runs `body` with the directory of a set-up for this port, which is gone afterwards.
let withPort (port: int) (body: string -> unit) : unit =
    let parent = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        let directory = Path.Combine(parent.FullName, "set-up")

        Expect.equal
            (Init.Run(options directory "127.0.0.1" port, TextWriter.Null, TextWriter.Null))
            0
            "the set-up is written"

        body directory
    finally
        parent.Delete true
