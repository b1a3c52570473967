/// Password files and the checks against them, on the system's own libcrypt.
module Lightway.Tests.AuthTests

open System
open System.Diagnostics
open System.Text
open System.Threading.Tasks
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Hosting
open Lightway.Server.Auth


let private bytes (text: string) =
    ReadOnlySpan(Encoding.UTF8.GetBytes text)

let private authenticator (file: string) =
    Authenticator.Parse(ReadOnlySpan(Encoding.UTF8.GetBytes file), 2)

let private parse (file: byte[]) =
    let mutable users: Htpasswd = null
    let mutable error: string = null

    if Htpasswd.TryParse(ReadOnlySpan file, &users, &error) then
        Ok users
    else
        Error error

let private parseText (file: string) = parse (Encoding.UTF8.GetBytes file)

/// Files that reference servers use: hashes made by other programs.
let private reference =
    String.concat
        "\n"
        [ "bcrypt_user:$2y$05$sLC0IaxaPbphGjLzmTEb8eDL9NL/tiBfA7OTVpa1CfDkUkW9CVTuO"
          "sha256_user:$5$iossVgDQrSn1S35f$A08tsmhi863Ir5vJEbF1iHjnDOc8lpspzYxKWzY4Uy7"
          "sha512_user:$5$Syjorkmkhi4MiC22$ssGjWYeevMgdkskpduH1nWbmC4suxQNUl82SYJ2XK42"
          "bad_hash_user:NOT A HASH"
          "apachemd5_user:$apr1$dzIISjZV$itIp3R9OU32h.vQ0tm9rm/"
          "apr1_user:$apr1$dzIISjZV$UP0KVEbR9FLsQle2oTo7i0" // openssl passwd -apr1
          "sha1_user:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=" // of "password"
          "plain_user:password"
          "" ]

let private schemes =
    testList
        "Schemes"
        [ for user, password, granted in
              [ "bcrypt_user", "bcrypt_password", true
                "sha256_user", "sha256_password", true
                "sha512_user", "sha512_password", true
                "bcrypt_user", "bcrypt_passwore", false
                "sha256_user", "", false
                "bad_hash_user", "any", false
                "bad_hash_user", "NOT A HASH", false
                "apachemd5_user", "apachemd5_passwd", false
                "apr1_user", "apachemd5_passwd", false
                "sha1_user", "password", false
                "plain_user", "password", false
                "nobody", "bcrypt_password", false
                "", "", false
                "BCRYPT_USER", "bcrypt_password", false ] do
              let verb = if granted then "is granted" else "is denied"

              test $"{user} with \"{password}\" {verb}" {
                  Expect.equal ((authenticator reference).Authorize(user, bytes password)) granted ""
              }

          for setting in
              [ "$1$saltsalt$"
                "$5$saltsalt$"
                "$6$saltsalt$"
                "$2b$04$abcdefghijklmnopqrstuu"
                "ab"
                "_J9..rasm" ] do
              test $"a hash made with {setting} lets in its own password and no other" {
                  let hash = LibCrypt.Hash(bytes "pässword", setting)
                  Expect.isNotNull hash "libcrypt knows the scheme"
                  let auth = authenticator $"u:{hash}\n"
                  Expect.isTrue (auth.Authorize("u", bytes "pässword")) ""
                  Expect.isFalse (auth.Authorize("u", bytes "passw0rd")) ""
              }

          test "a scheme that libcrypt knows and the reference server does not is denied" {
              let hash = LibCrypt.Hash(bytes "word", "$y$j9T$saltsalt$")
              Expect.isNotNull hash "libcrypt knows yescrypt"
              Expect.isFalse ((authenticator $"u:{hash}\n").Authorize("u", bytes "word")) ""
          }

          test "SHA-1 crypt, which htpasswd files may hold, is served" {
              let hash = LibCrypt.Hash(bytes "word", "$sha1$1000$saltsalt$")
              Expect.isNotNull hash "libcrypt knows the scheme"
              Expect.isTrue ((authenticator $"u:{hash}\n").Authorize("u", bytes "word")) ""
          }

          test "SHA-512 crypt of another implementation (openssl passwd -6)" {
              let hash =
                  "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"

              Expect.equal (LibCrypt.Hash(bytes "Hello world!", "$6$saltstring")) hash ""
          }

          test "a password ends where it ends, not at a NUL byte" {
              let auth = authenticator $"""u:{LibCrypt.Hash(bytes "abc", "$6$saltsalt$")}"""
              Expect.isTrue (auth.Authorize("u", bytes "abc")) ""
              Expect.isFalse (auth.Authorize("u", bytes "abc\000def")) ""
              Expect.isFalse (auth.Authorize("u", bytes "\000")) ""
          }

          test "a check that throws is answered, once, and lets nobody in" {
              let users = authenticator "a:$1$salt$hash"
              let answers = System.Collections.Concurrent.ConcurrentQueue<LoginAnswer>()
              use answered = new System.Threading.CountdownEvent 2

              let allowed = LoginAnswer(AuthVerdict.Allowed, null)

              for check in [ (fun () -> raise (OutOfMemoryException "no memory")); (fun () -> allowed) ] do
                  users.RunOnPool(
                      Func<LoginAnswer> check,
                      Action<LoginAnswer>(fun answer ->
                          answers.Enqueue answer
                          answered.Signal() |> ignore)
                  )

              Expect.isTrue (answered.Wait(TimeSpan.FromSeconds 30.)) "both are answered"

              Expect.containsAll answers [ LoginAnswer(AuthVerdict.Failed, "no memory"); allowed ] "one each"
          }

          test "checks from many threads at once do not disturb each other" {
              let auth = authenticator reference
              let wrong = ResizeArray()

              Parallel.For(
                  0,
                  64,
                  fun i ->
                      let password = if i % 2 = 0 then "bcrypt_password" else "other"

                      if auth.Authorize("bcrypt_user", bytes password) <> (i % 2 = 0) then
                          lock wrong (fun () -> wrong.Add i)
              )
              |> ignore

              Expect.isEmpty wrong ""
          }

          test "a user who does not exist costs as much time as one who does" {
              // 50 000 rounds: some 20 ms, a thousand times the cost of everything else in a check.
              let hash = LibCrypt.Hash(bytes "word", "$6$rounds=50000$saltsalt$")
              let auth = authenticator $"known:{hash}\nodd:NOT A HASH\n"

              let fastest user =
                  Seq.min
                      [ for _ in 1..5 do
                            let clock = Stopwatch.StartNew()
                            auth.Authorize(user, bytes "wrong") |> ignore
                            clock.Elapsed.TotalMilliseconds ]

              let known = fastest "known"
              Expect.isGreaterThan (fastest "unknown") (known / 10.) "unknown"
              Expect.isGreaterThan (fastest "odd") (known / 10.) "scheme not served"
          } ]

let private files =
    testList
        "Files"
        [ test "one user, with or without the last line end" {
              for file in [ "user:hash\n"; "user:hash"; "user:hash\r\n" ] do
                  let users = Expect.wantOk (parseText file) ""
                  Expect.equal users.Count 1 ""
                  Expect.sequenceEqual users.Hashes [ "hash" ] ""
          }

          test "the last line of a user wins" {
              let users = Expect.wantOk (parseText "a:1\nb:2\na:3\n") ""
              Expect.equal users.Count 2 ""
              let mutable hash: string = null
              Expect.isTrue (users.TryFind("a", &hash)) ""
              Expect.equal hash "3" ""
          }

          test "a hash may hold colons" {
              Expect.sequenceEqual (Expect.wantOk (parseText "a:1:2") "").Hashes [ "1:2" ] ""
          }

          for name, file, part in
              [ "empty", "", "no users"
                "no colon", "xxx", "line 1"
                "no user", ":hash", "line 1"
                "no hash", "user:", "line 1"
                "a hash of blanks only", "user:  ", "line 1"
                "comments only", "# a:1\n\n", "no users"
                "a wrong line after comments", "# a\n\nb\n", "line 3" ] do
              test $"{name}: refused" { Expect.stringContains (Expect.wantError (parseText file) "") part "" }

          for name, file in
              [ "a byte order mark", "\uFEFFa:1\nb:2\n"
                "blanks and tabs at the end of a line", "a:1 \nb:2\t \r\n"
                "blank lines", "\na:1\n\n  \nb:2\n\n"
                "comments, also with a colon", "# users: two\na:1\n#c:3\nb:2\n" ] do
              test $"{name}: no obstacle" {
                  let users = Expect.wantOk (parseText file) ""
                  Expect.equal users.Count 2 "users"
                  Expect.sequenceEqual users.Hashes [ "1"; "2" ] "hashes"
                  let mutable hash: string = null
                  Expect.isTrue (users.TryFind("a", &hash)) "the first user has its own name"
              }

          test "users whose scheme is not served are named with line, scheme and remedy, the others are not" {
              let file =
                  "good:$2y$05$abcdefghijklmnopqrstuu\nold:$apr1$salt$hash\nsha:{SHA}aGFzaA==\nplain:secret-text\nold2:x\nold2:$6$a$b\n"

              let users = Expect.wantOk (parseText file) ""

              Expect.sequenceEqual
                  users.Unserved
                  [ "line 2: the scheme $apr1$ is not served, so 'old' can't log in; run: htpasswd -B FILE old"
                    "line 3: the scheme {SHA} is not served, so 'sha' can't log in; run: htpasswd -B FILE sha"
                    "line 4: a password in plain text is not served, so 'plain' can't log in; run: htpasswd -B FILE plain" ]
                  "warnings"

              Expect.isFalse (String.concat "" users.Unserved |> _.Contains("secret-text")) "no password is shown"
          }

          test "not UTF-8: refused" {
              Expect.stringContains (Expect.wantError (parse [| 0xc3uy; 0x28uy |]) "") "UTF-8" ""
          }

          testProperty "reading a written file gives its users; any bytes are read or refused without raising"
          <| fun (users: Map<int, int>) (junk: byte[]) ->
              parse junk |> ignore

              let file =
                  String.concat "\n" [ for user, hash in Map.toSeq users -> $"u{user}:h{hash}" ]

              match parseText file with
              | Ok parsed -> List.ofSeq parsed.Hashes = [ for hash in users.Values -> $"h{hash}" ]
              | Error error -> users.IsEmpty && error = "no users"

          test "a file that is missing or wrong is one clear error" {
              let refused path =
                  try
                      Authenticator.Load(path, 1) |> ignore
                      failtest "loaded"
                  with :? ConfigurationException as error ->
                      error.Message

              Expect.stringStarts (refused "/nonexistent/users") "user_db: cannot read \"/nonexistent/users\"" ""
              Expect.equal (refused "/dev/null") "user_db: \"/dev/null\": no users" ""
          } ]

let tests: Test = testList "Auth" [ schemes; files ]
