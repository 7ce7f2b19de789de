"""A Hub of one's own: folders of models, a Hugging Face cache, or a store that clients may write to, over HTTP.

    objects     git's names of blobs, trees and commits
    names       what a repository, a revision and a file may be called
    repository  what every kind of repository can be asked
    folders, cache    the two kinds that are only read
    people      users, organisations, who may do what
    calls, routes, app    from a request to the function that answers it
    running     the server itself

Importing the package imports neither starlette nor uvicorn.
"""
