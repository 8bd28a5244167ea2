#!/usr/bin/env python3
"""Calls the API through the proxy with the vendor's own Python SDK, and lets its models judge the answers.

    pip install cloudbeds-pms-v1-3==1.19.0
    scripts/check_sdk.py --base http://127.0.0.1:8080 --property 1001

The application holds no credential: only the address and the property's header are configured. Against the sandbox
itself, without a proxy between, `--key` and `--ca` supply what the proxy would. One line per call; exit status 1 and a
sentence on standard error when something is not as it should be.
"""

import argparse
import datetime
import os
import sys
import zlib

try:
    import cloudbeds_pms_v1_3 as sdk
    from cloudbeds_pms_v1_3.rest import ApiException
except ImportError:
    sys.exit("check_sdk: the SDK is missing: pip install cloudbeds-pms-v1-3==1.19.0")


def check(what, found, wanted):
    """Ends the run unless the two are equal."""
    if found != wanted:
        sys.exit(f"check_sdk: {what}: expected {wanted!r}, got {found!r}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="http://127.0.0.1:8080", help="where the proxy listens (default: %(default)s)")
    parser.add_argument("--property", default="1001", help="the property to ask for (default: %(default)s)")
    parser.add_argument("--size", type=int, default=3_000_000, help="bytes of the uploaded file (default: %(default)s)")
    parser.add_argument("--key", help="a key to send, for a sandbox without a proxy")
    parser.add_argument("--ca", help="the root certificate to trust, for an https base")
    return parser.parse_args()


def client(options):
    configuration = sdk.Configuration(host=options.base.rstrip("/") + "/api/v1.3", ssl_ca_cert=options.ca)
    api = sdk.ApiClient(configuration)
    api.set_default_header("X-Property-Id", options.property)
    if options.key:
        api.set_default_header("Authorization", f"Bearer {options.key}")
    return api


def hotels(api, options):
    answer = sdk.HotelApi(api).get_hotels_get()
    check("getHotels success", answer.success, True)
    check("getHotels properties", [hotel.property_id for hotel in answer.data], [options.property])
    check("getHotels total", answer.total, len(answer.data))
    print(f"getHotels: {answer.data[0].property_id} {answer.data[0].property_name!r}")

    details = sdk.HotelApi(api).get_hotel_details_get(property_id=options.property).data
    check("getHotelDetails propertyID", details.property_id, options.property)
    check("getHotelDetails name", details.property_name, answer.data[0].property_name)
    print(f"getHotelDetails: {details.property_name!r} in {details.property_address.property_city}")

    rooms = sdk.RoomApi(api).get_rooms_get()
    check("getRooms property", rooms.data[0].property_id, options.property)
    if not rooms.data[0].rooms:
        sys.exit("check_sdk: getRooms: no rooms")
    print(f"getRooms: {len(rooms.data[0].rooms)} rooms, the first is {rooms.data[0].rooms[0].room_name}")


def reservations(api, options):
    found = sdk.ReservationApi(api)
    first = found.get_reservations_get(page_number=1, page_size=10)
    check("getReservations success", first.success, True)
    check("getReservations count", first.count, len(first.data))
    check("getReservations on page 1", len(first.data), min(10, first.total))
    ids, page = {one.reservation_id for one in first.data}, 1
    while len(ids) < first.total and page < 100:
        page += 1
        ids |= {one.reservation_id for one in found.get_reservations_get(page_number=page, page_size=10).data}
    check("getReservations over all pages", len(ids), first.total)
    one = first.data[0]
    check("getReservations property", one.property_id, options.property)
    check("getReservations date type", type(one.start_date), datetime.date)
    print(f"getReservations: {first.total} on {page} pages, the first is {one.reservation_id} of {one.guest_name}")

    full = found.get_reservation_get(reservation_id=one.reservation_id).data
    check("getReservation id", full.reservation_id, one.reservation_id)
    check("getReservation guests", list(full.guest_list), [one.guest_id])
    print(f"getReservation: {full.reservation_id}, {full.status}, total {full.total}")


def user(api):
    answer = sdk.AuthenticationApi(api).userinfo_get()
    if not answer.user_id:
        sys.exit("check_sdk: userinfo: no user")
    print(f"userinfo: {answer.user_id} {answer.first_name} {answer.last_name}")


def upload(api, options):
    content = os.urandom(options.size)
    # The description says urlencoded, and so does the SDK by default, which then sends the file's repr(). The vendor's
    # technical notes say multipart.
    answer = sdk.HotelApi(api).post_file_post_with_http_info(
        property_id=options.property, file=("report.pdf", content), _content_type="multipart/form-data"
    )
    check("postFile success", (answer.data.success, answer.data.message), (True, None))
    if not answer.data.data.file_id:
        sys.exit("check_sdk: postFile: no file id")
    # Only the sandbox says what arrived.
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if "x-sandbox-file-bytes" in headers:
        check("postFile bytes", headers["x-sandbox-file-bytes"], str(len(content)))
        check("postFile checksum", headers["x-sandbox-file-crc32"], f"{zlib.crc32(content):08x}")
    print(f"postFile: {len(content)} bytes became file {answer.data.data.file_id}")


def main():
    options = arguments()
    api = client(options)
    try:
        hotels(api, options)
        reservations(api, options)
        user(api)
        upload(api, options)
    except ApiException as error:
        sys.exit(f"check_sdk: the answer was {error.status}: {error.body}")
    except Exception as error:  # The SDK lets urllib3's and pydantic's errors through.
        sys.exit(f"check_sdk: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
