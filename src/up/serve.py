"""Serves one WSGI application of a Unit configuration with the standard library's server.

argv[1]: a JSON file with host, port, path (a list), module, callable, factory, working_directory,
environment and prefix, with the meaning of the members of Unit's application.
"""
import importlib
import inspect
import json
import os
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import shift_path_info


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def address_string(self):  # no reverse look-up
        return self.client_address[0]


def below(prefix, application):
    """Moves Unit's `prefix` from PATH_INFO to SCRIPT_NAME if the path of a request starts with it."""
    names = [name for name in prefix.split("/") if name]

    def wrapped(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if (path + "/").startswith("/" + "/".join(names) + "/"):
            for _ in names:
                shift_path_info(environ)
        return application(environ, start_response)

    return wrapped


with open(sys.argv[1]) as file:
    wanted = json.load(file)
os.environ.update(wanted["environment"])
if wanted["working_directory"]:
    os.chdir(wanted["working_directory"])
sys.path[:0] = wanted["path"]
application = getattr(importlib.import_module(wanted["module"]), wanted["callable"])
if wanted["factory"]:
    application = application()
# Unit detects ASGI in the same way. Called as WSGI, the app would answer every request with 500.
if any(map(inspect.iscoroutinefunction, (application, getattr(application, "__call__", None)))):
    sys.exit("%s.%s is an ASGI application, which only Unit can serve" % (wanted["module"], wanted["callable"]))
if wanted["prefix"]:
    application = below(wanted["prefix"], application)
make_server(wanted["host"], wanted["port"], application, Server, Handler).serve_forever()
